"""A prompt -> the tokens after which an answer is to be drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finetune_contract.reasons import Reason
from finetune_trainer.data.completeness import check_complete
from finetune_trainer.data.encode import EncodedRow, Encoder, refuse_unknown
from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.rows import Row
from finetune_trainer.methods.grpo.prompts.rows import Prompt
from finetune_trainer.process.errors import Failure


@dataclass(frozen=True)
class EncodedPrompt(EncodedRow):
    """No token of a prompt is learned; `document` is its row's."""

    document: bytes = b""


class PromptEncoder(Encoder):
    """Encodes prompts for one tokenizer and refuses those of more than `longest` tokens."""

    def encode(self, row: Row) -> EncodedPrompt:
        """Return the tokens after which an answer is to be drawn; raise RowError for a fault."""
        assert isinstance(row, Prompt), "read by prompt_reader"
        told = self._control.check(row)
        ids, rendered = self._ids(row)
        if not ids:
            raise RowError(Kind.EMPTY_PROMPT, "has a prompt of which the tokenizer leaves nothing")
        if len(ids) > self._longest:
            raise self._too_long(str(len(ids)))
        if rendered is not None:
            check_complete(rendered, row)
        tokens = np.array(ids, dtype=np.int32)
        refuse_unknown(tokens, self._vocabulary)
        return EncodedPrompt(
            tokens, np.zeros(len(ids), dtype=np.bool_), told, document=row.document.encode()
        )

    def _too_long(self, count: str) -> RowError:
        return RowError(
            Kind.PROMPT_TOO_LONG,
            f"has a prompt of {count} tokens, more than the {self._longest} that "
            "training.sequenceLength - rollout.maxTokens leaves",
        )

    def _ids(self, prompt: Prompt) -> tuple[list[int], str | None]:
        """Return the prompt's tokens, and what the chat template made of it, if there is one."""
        if self._template is not None:
            text = self._template.prompt(prompt)
            return self._tokenize(text, add_special_tokens=False).ids, text
        if prompt.text is None:
            raise Failure(
                Reason.MODEL_UNSUPPORTED,
                "the base model has no chat template, so it can not be given messages: use its "
                "instruct variant, or prompts of text",
            )
        ids = self._tokenize(prompt.text, add_special_tokens=True).ids
        # A tokenizer that ends every text has ended what is to be gone on with.
        return (ids[:-1] if ids[-1:] == [self._tokenizer.eos_token_id] else ids), None
