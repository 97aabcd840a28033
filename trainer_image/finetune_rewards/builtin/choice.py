"""Multiple choice: the letter that a completion settles on."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from finetune_contract.rewards import ChoiceReward
from finetune_rewards.builtin import Scorer, compared
from finetune_rewards.scores.columns import text_value

# What may stand between a word and its letter: "answer is option **B", "answer: \(B".
_MARKS = r"[\s:*_$]*"
_LEADING = rf"(?i:\s+is)?{_MARKS}(?:(?i:option|choice)\b{_MARKS})?\\?\(?"

# What is said of a letter that is not the answer.
_WRONG = (
    r"(?![*_)]*\s+(?i:(?:is|was|seems|would\s+be)\s+(?:not|wrong|incorrect|false)\b"
    r"|isn['\u2019]t\b|can(?:not|['\u2019]t)\b))"
)

_ASIAN = (  # answer, in Chinese, Japanese and Korean: 答案是**B**
    r"(?:答案|答え|正解|解答|选择|選擇|选|選|정답|답)(?:应该|應該|应|應)?(?:是|为|為|は|은|는)?"
    r"[\s:\uff1a*_$]*\\?[(\uff08]?"
)


def scorer(settings: ChoiceReward, name: str) -> Scorer:
    """Return 1 for the column's letter, 0 for another or none; None where it holds no letter."""
    settled = _settled(settings.choices)

    def one(said: str | None, value: Any) -> float | None:
        right = (text_value(value) or "").strip(" ().:").upper()
        if len(right) != 1 or right not in settings.choices:
            return None
        return float(said is not None and settled(said) == right)

    return compared(one, settings, settings.answer, name)


def _settled(choices: str) -> Callable[[str], str | None]:
    """Return text -> its letter: the last of the strongest evidence there is. That is a letter in a
    box or in answer tags; one that is said to be the answer; one after the words option or choice;
    one that stands in brackets, before `)`, `.` or `:`, or at the end of a line. A lower-case
    letter counts where it can be nothing else."""
    upper, either = f"[{choices}]", f"[{choices}{choices.lower()}]"
    ranks = [
        rf"\\boxed\{{\s*(?:\\(?:text|mathrm|textbf)\{{)?\s*\(?({either})\)?\s*\}}"
        rf"|<answer>\s*\(?({either})\)?[.:]?\s*</answer>",
        rf"\b(?i:answer)\b{_LEADING}({upper})(?!\w){_WRONG}|{_ASIAN}({upper})(?![A-Za-z0-9_])",
        rf"\b(?i:option|choice)\b{_LEADING}({upper})(?!\w){_WRONG}",
        rf"(?m)\(({either})\)|(?<![\w'])(?<!\bnot )({upper})(?=[).:]|[*_\s]*$)"
        rf"|\A\s*({either})[).:]?\s*\Z",
    ]
    patterns = [re.compile(rank) for rank in ranks]

    def settled(text: str) -> str | None:
        for pattern in patterns:
            found = [match[match.lastindex or 0] for match in pattern.finditer(text)]
            if found:
                return found[-1].upper()
        return None

    return settled
