"""Multiple choice: the letter that a completion settles on."""

from __future__ import annotations

import re
from collections.abc import Callable

from finetune_contract.rewards import ChoiceReward
from finetune_rewards.columns import column, text_value
from finetune_rewards.samples import Samples, text_of


def scorer(settings: ChoiceReward, name: str) -> Callable[[Samples], list[float | None]]:
    """Return 1 for the column's letter, 0 for another or none; None where it holds no letter."""
    settled = _settled(settings.choices)

    def one(completion: str, answer: str | None) -> float | None:
        right = (answer or "").strip(" ().:").upper()
        if len(right) != 1 or right not in settings.choices:
            return None
        return float(settled(completion) == right)

    def score(samples: Samples) -> list[float | None]:
        answers = column(samples, settings.answer, name)
        return [
            one(text_of(completion), text_value(answer))
            for completion, answer in zip(samples.completions, answers, strict=True)
        ]

    return score


def _settled(choices: str) -> Callable[[str], str | None]:
    """Return text -> its letter: the last that is declared as the answer, else the last that
    stands in brackets, before `)`, `.` or `:`, or at the end of a line. A lower-case letter counts
    where it can be nothing else."""
    upper, either = f"[{choices}]", f"[{choices}{choices.lower()}]"
    declared = re.compile(
        rf"\\boxed\{{\s*(?:\\(?:text|mathrm|textbf)\{{)?\s*\(?({either})\)?\s*\}}"
        rf"|<answer>\s*\(?({either})\)?[.:]?\s*</answer>"
        rf"|\b(?i:answer|option|choice)\b(?i:\s+is)?[\s:*_]*\(?({upper})(?!\w)"
    )
    alone = re.compile(
        rf"(?m)\(({either})\)|(?<![\w'])({upper})(?=[).:]|[*_\s]*$)|\A\s*({either})[).:]?\s*\Z"
    )

    def settled(text: str) -> str | None:
        for pattern in (declared, alone):
            found = [match[match.lastindex or 0] for match in pattern.finditer(text)]
            if found:
                return found[-1].upper()
        return None

    return settled
