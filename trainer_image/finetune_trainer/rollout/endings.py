"""Where a completion ends: at an end-of-turn token, or where a stop text is complete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finetune_trainer.model.generation import stop_tokens

# Tokens decoded before a stop text could begin: what opens a text may be decoded otherwise.
MARGIN = 4


class Endings:
    """Tells whether a completion ends with the token it has got last."""

    def __init__(self, model: Any, tokenizer: Any, stop: Sequence[str]) -> None:
        self.tokens = frozenset(stop_tokens(model, tokenizer))
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        # A token is a byte of the text at least, unless it is no text.
        self._window = max((len(text.encode()) for text in stop), default=0) + MARGIN

    def ended(self, tokens: Sequence[int]) -> bool:
        """Tell whether the last of a completion's tokens ends it; those before did not."""
        if tokens[-1] in self.tokens:
            return True
        if not self._stop:
            return False
        text = self._tokenizer.decode(
            tokens[-self._window :],
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        return any(stop in text for stop in self._stop)
