"""What rewards read of tokens: a completion's text, and what the prompt has opened before it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from finetune_rewards.reading.thought import opened_by

HEADER = 64  # tokens at a prompt's end in which a template's header stands


class Texts:
    """Texts of tokens. Special tokens are a part of them (`<think>` and marks of tool calls are
    such in many vocabularies), but for those that end a completion and for padding."""

    def __init__(self, tokenizer: Any, ends: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._left_out = {tokenizer.pad_token_id, *ends}

    def completion(self, tokens: Sequence[int]) -> str:
        """Return a completion's text."""
        kept = [token for token in tokens if token not in self._left_out]
        return str(self._tokenizer.decode(kept, skip_special_tokens=False))

    def opened(self, prompt: Sequence[int]) -> str:
        """Return the tags that a prompt ends with."""
        end = list(prompt[-HEADER:])
        return opened_by(str(self._tokenizer.decode(end, skip_special_tokens=False)))
