"""The `math` reward, line by line: what is an answer and what none, in whatever script."""

# ruff: noqa: RUF001 - signs that look alike are what this is about

from __future__ import annotations

import json
from typing import Any

import pytest

from support.rewards.builtin import score

MARKED: list[tuple[str, Any, int]] = [
    ("42", "42", 1),
    ("17 + 25", "42", 0),
    ("17 + 25", "25", 0),
    ("17 + 25 = 42", "42", 1),
    (r"\boxed{17+25}", "42", 0),
    (r"\boxed{17+25=42}", "42", 1),
    ("<answer>17+25</answer>", "42", 0),
    ("<answer>42</answer>", 42, 1),
    ("<answer>\n**42**\n</answer>", 42, 1),
    ("<answer>41</answer> no: <answer>42</answer>", "42", 1),
    ("<answer>42</answer> no: <answer>41</answer>", "42", 0),
    (r"<answer>\boxed{42}</answer>", "42", 1),
    (r"<answer>42</answer>, not \boxed{41}", "42", 1),
    ("<answer>x = 42</answer>", "42", 1),
    ("<answer>It is 42.</answer>", "42", 1),
    ("<answer>3, 5</answer>", "5", 0),
    (r"\boxed{5 \text{ or } -5}", "-5", 0),
    (r"\boxed{\pm 5}", "5", 0),
    (r"\boxed{x > 5}", "5", 0),
    (r"\boxed{2^{10}}", "1024", 0),
    (r"\boxed{\sqrt{16}}", "4", 0),
    (r"\boxed{3\sqrt{2}}", "2", 0),
    (r"\boxed{2\pi}", "2", 0),
    (r"First \boxed{3}, then finally \boxed{7}.", "7", 1),
    (r"First \boxed{3}, then finally \boxed{7}.", "3", 0),
    (r"\boxed{\frac{1}{2}}", "0.5", 1),
    (r"\boxed{\dfrac{14}{4}}", "7/2", 1),
    (r"\boxed{\frac12}", "1/2", 1),
    (r"\boxed{1\frac{1}{2}}", "3/2", 1),
    (r"\boxed{-\frac{1}{2}}", "-0.5", 1),
    (r"\boxed{\frac{x}{2}}", "2", 0),
    (r"\boxed{\{1, 2\}}", r"\{2, 1\}", 1),
    (r"\boxed{(1, 2)}", "(1, 2)", 1),
    (r"\boxed{(2, 1)}", "(1, 2)", 0),
    (r"\boxed{x^{2}+1}", "1+x^2", 1),
    (r"\boxed{\text{Tuesday}}", r"\text{Tuesday}", 1),
    (r"\boxed{x=5}", "5", 1),
    (r"\boxed{5}", "x = 5", 1),
    (r"\fbox{9} and \boxed{5}", "5", 1),
]

PROSE: list[tuple[str, Any, int]] = [
    ("She has 3 apples, then 72.", 72, 1),
    ("She has 72 apples and eats 3", 72, 0),
    ("The answer is 42!", "42", 1),
    ("Is it 42? It is 42...", "42", 1),
    ("H2O boils at 100", "100", 1),
    ("It is 7, as in H2O", "7", 1),
    ("It is 7 (see x_2)", "7", 1),
    ("the 3rd of them is 7", "7", 1),
    ("7 is the 3rd", "7", 1),
    ("At 12:30 there are 7", "7", 1),
    ("There are 7 at 12:30", "7", 1),
    ("There are 7 on 2024-05-03", "7", 1),
    ("x - 5", "-5", 0),
    ("It is -5", "-5", 1),
    ("It is -5", "5", 0),
    ("It is (5)", "5", 1),
    ("It is 1,234,567", 1234567, 1),
    ("It is 1,234.50", "1234.5", 1),
    (r"It is $1{,}234$", "1234", 1),
    ("Es sind 1.234,5", "1234.5", 1),
    ("Es sind 3,5", "3.5", 1),
    ("Es sind 3,5", "5", 0),
    ("It is 1/3", "0.3333", 1),
    ("It is 0.33", "1/3", 0),
    ("It is 0.30000000000000004", 0.3, 1),
    ("about 1.5e3", "1500", 1),
    (r"about $1.5 \times 10^{3}$", "1500", 1),
    (r"about $10^{-5}$", 0.00001, 1),
    ("1e-05", 0.00001, 1),
    ("0.00002", 0.00001, 0),
    ("5, or 7", "5", 0),
    ("no idea", "5", 0),
    ("", "5", 0),
    ("The answer is $1 + 2x$", "2x+1", 1),
    ("The answer is 2", "2x+1", 0),
    ("10 - 4 = 6, which is 6", "10 - 4 = 6\n#### 6", 1),
    ("It is 2.", r"$\sqrt{4}$", 1),
    ("½", "0.5", 1),
    ("It is 2½", "2.5", 1),
]

CJK: list[tuple[str, Any, int]] = [
    ("答案是42。", "42", 1),
    ("答案是42", "42", 1),
    ("答案是41。", "42", 0),
    ("答案是17+25。", "42", 0),
    ("所以一共有18个苹果。", "18", 1),
    ("先有3个,再加上5个,一共8个", "8", 1),
    ("答案:４２", "42", 1),
    ("答案:-5", "-5", 1),
    ("答案是-5。", "-5", 1),
    ("答案是−5。", "-5", 1),
    ("共3万元", "30000", 1),
    ("共3万元", "3", 0),
    ("共1.2亿", "120000000", 1),
    ("答えは42です。", "42", 1),
    ("答えは、42である", "42", 1),
    ("合計で1,200円です", "1200", 1),
    ("답은 42입니다.", "42", 1),
    ("답은42입니다", "42", 1),
    ("모두 18개", "18", 1),
    ("คำตอบคือ42", "42", 1),
    (r"因此\boxed{42}。", "42", 1),
    (r"因此\boxed{42个}。", "42", 1),
    ("<answer>四十二是42</answer>", "42", 1),
    ("الجواب هو ٤٢.", "42", 1),
    ("उत्तर ४२ है", "42", 1),
    ("面积是5平方米", "5", 1),
    ("比例为50%", "50%", 1),
    ("他每天赚18美元。", "18", 1),
    ("结果是１，２００", "1200", 1),
]

CURRENCY_AND_UNITS: list[tuple[str, Any, int]] = [
    (r"She makes \$18 every day.", "18", 1),
    ("She makes $18 every day.", "18", 1),
    ("She makes $18 every day and keeps $5.", "18", 0),
    ("It costs -$5", "-5", 1),
    ("It costs €1,200.50.", "1200.5", 1),
    ("It costs ￥35", "35", 1),
    ("It costs US$35", "35", 1),
    ("It costs 35USD", "35", 1),
    ("It costs 18 dollars", "$18", 1),
    (r"\boxed{\$18}", "18", 1),
    (r"\boxed{18 \text{ dollars}}", "18", 1),
    (r"\boxed{5\,\text{cm}}", "5", 1),
    (r"\boxed{5\text{ cm}^2}", "5", 1),
    (r"\boxed{90^\circ}", "90", 1),
    (r"\boxed{90°}", "90", 1),
    ("It is 5cm long", "5", 1),
    ("It is 5 cm^2", "5", 1),
    ("It is 5 m²", "5", 1),
    ("It is 5kg.", "5 kg", 1),
    ("It is 50 km/h", "50", 1),
    (r"It is 50\%", "50%", 1),
    ("It is 50%", "0.5", 1),
    ("It is 0.5", "50%", 1),
    ("It is 5%", "0.5", 0),
    ("It is 3 million", "3000000", 1),
    ("It is 5k", "5000", 1),
    ("It is 5k", "5", 0),
    ("It is a 5B", "5", 0),
]

MARKDOWN: list[tuple[str, Any, int]] = [
    ("**42**", "42", 1),
    ("The answer is **42**.", "42", 1),
    ("*Answer:* 42", "42", 1),
    ("**Answer: 42**", "42", 1),
    ("**Step 1** 42", "42", 1),
    ("The answer is `42`.", "42", 1),
    ('The answer is "42".', "42", 1),
    ("The answer is '42'", "42", 1),
    ("The answer is __42__", "42", 1),
    ("- 42", "42", 1),
    ("* 42", "42", 1),
    ("1. Add them.\n2. Get 42", "42", 1),
    ("### Answer\n\n42\n", "42", 1),
    ("> 42", "42", 1),
    ("| total | 42 |", "42", 1),
    ("```\n42\n```", "42", 1),
    ("#### 42", "42", 1),
    ("$$42$$", "42", 1),
    (r"\[ x = 42 \]", "42", 1),
    (r"\(42\)", "42", 1),
    (r"**\boxed{42}**", "42", 1),
    ("so it is <b>42</b>", "42", 1),
    ("-> 42", "42", 1),
]

UNFINISHED: list[tuple[str, Any, int]] = [
    (r"First \boxed{3}, then \boxed{7", "3", 1),
    (r"First \boxed{3}, then \boxed{7", "7", 0),
    (r"\boxed{\frac{1}{2}", "0.5", 1),
    (r"\boxed{\boxed{5}", "5", 1),
    ("<answer>3</answer> or <answer>7", "3", 1),
    ("<answer>3</answer> or <answer>7", "7", 0),
    (r"<think>it is \boxed{5} maybe", "5", 0),
    ("<think>it is 5", "5", 0),
    ("<think>it is 5</think>6", "5", 0),
    ("<think>it is 6</think>5", "5", 1),
    ("it is 6</think>5", "5", 1),
    ("<think>it is 5</think>", "5", 0),
    ("<think>6</think>5 <think>no", "5", 0),
    ("[THINK]5", "5", 0),
    ("[THINK]6[/THINK]5", "5", 1),
    ("17 +", "17", 0),
    ("The answer is", "5", 0),
]

TABLE = [*MARKED, *PROSE, *CJK, *CURRENCY_AND_UNITS, *MARKDOWN, *UNFINISHED]


def test_the_table_is_a_table() -> None:
    assert len(TABLE) >= 120
    special = len(CJK) + len(CURRENCY_AND_UNITS) + len(MARKDOWN) + len(UNFINISHED)
    assert special >= len(TABLE) / 3


@pytest.mark.parametrize(
    ("completion", "column", "expected"), TABLE, ids=[json.dumps(line[:2]) for line in TABLE]
)
def test_math(completion: str, column: Any, expected: int) -> None:
    assert score({"math": {}}, completion, answer=column) == expected
