"""A rank beside others whose part a test makes up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from finetune_trainer.process.distributed import Ranks


class RanksBeside(Ranks):
    """A rank that is alone, as it would be if `answers` made what it hears of what it did."""

    def __init__(self, alone: Ranks, answers: Callable[[list[Any]], list[Any]]) -> None:
        vars(self).update(vars(alone))
        self._answers = answers

    def everywhere(self, work: Callable[[], Any]) -> list[Any]:
        """Do `work`; return what all made, by rank."""
        return self._answers(super().everywhere(work))
