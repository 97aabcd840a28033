"""`finetune reward test` on rows in whose completions an answer is easily misread."""

from __future__ import annotations

from typing import Any

from support.rewards.trials import Files, report

MATH: list[tuple[Any, dict[str, int]]] = [
    ("42", {"42": 1, "17 + 25": 0, r"\boxed{17+25}": 0, "<answer>17+25</answer>": 0}),
    (
        "7",
        {
            r"First \boxed{3}, then finally \boxed{7}.": 1,
            r"We get \boxed{3} and hence \boxed{7}.": 1,
            r"\boxed{7}": 1,
        },
    ),
    (
        "18",
        {
            r"She makes \$18 every day.": 1,
            "She makes $18 every day.": 1,
            "The answer is `18`.": 1,
            'The answer is "18".': 1,
        },
    ),
    (0.00001, {"0.00001": 1, r"\boxed{0.00001}": 1, "1e-05": 1}),
    ("5", {r"<think>it is \boxed{5} maybe": 0, "<think>it is 5</think>6": 0}),
]
PERHAPS_A = "<think>Perhaps the answer is A. No: it fails. It must be the third.</think>\n\n**C**"
CHOICE = [
    ("C", PERHAPS_A, 1),
    ("A", PERHAPS_A, 0),
    ("C", r"<think>\boxed{A}? No.</think>The answer is C.", 1),
]


def test_answers_are_read_where_they_stand(files: Files) -> None:
    rows = [
        {"prompt": "?", "answer": answer, "letter": "A", "completions": list(said)}
        for answer, said in MATH
    ]
    rows += [
        {"prompt": "?", "answer": 0, "letter": letter, "completion": said}
        for letter, said, _ in CHOICE
    ]
    rewards = [{"name": "m", "math": {}}, {"name": "c", "choice": {"answer": "letter"}}]
    _, found = report(files.rewards(rewards), files.rows(*rows))
    scores = [row["scores"] for row in found["rows"]]
    expected = [score for _, said in MATH for score in said.values()]
    assert [one["m"] for one in scores[: len(expected)]] == expected
    assert [one["c"] for one in scores[len(expected) :]] == [score for _, _, score in CHOICE]


def test_a_header_that_opens_the_thought_is_told(files: Files) -> None:
    rewards = files.rewards([{"name": "m", "math": {}}])
    chat = [{"role": "user", "content": "2 + 3?"}]
    rows = files.rows(
        {"prompt": chat, "answer": "5", "completions": ["It is 5", "no</think>5"]},
        {"prompt": "2 + 3? <think>", "answer": "5", "completions": ["It is 5", "no</think>5"]},
    )
    for header, first in (("", 1), ("<|assistant|>\n<think>\n", 0)):
        _, found = report(rewards, rows, "--header", header)
        assert [row["scores"]["m"] for row in found["rows"]] == [first, 1, 0, 1]
