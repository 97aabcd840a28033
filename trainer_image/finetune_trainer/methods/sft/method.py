"""Supervised fine-tuning: the defaults, and the loss of learned tokens."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from finetune_trainer.methods.base import Learning, Method

if TYPE_CHECKING:
    from finetune_trainer.run import Run


class Sft(Method):
    """Learns the assistant's turns, or completions."""

    def opened(self, run: Run) -> AbstractContextManager[Learning]:
        """Return the method at work: it needs nothing open."""
        from finetune_trainer.methods.sft.learning import SftLearning

        return nullcontext(SftLearning())


METHOD = Sft()
