"""A row -> tokens, and which of them are learned. Masks come from positions, never from token ids.

A dialogue is rendered once by the model's own chat template and tokenised with character offsets.
What an assistant turn adds to the rendering, beyond the header that `add_generation_prompt` gives,
is learned: its text and its end-of-turn token. White space that a template puts after an
end-of-turn token is not learned, because generation has stopped by then. A token that holds some of
the header as well as some of the text counts as header.

prompt/completion text becomes one user and one assistant turn where the model has a chat template;
otherwise it is prompt + completion + end-of-sequence, and the last two are learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from jinja2 import TemplateError

from finetune_contract.reasons import Reason
from finetune_trainer.data.faults import RowError
from finetune_trainer.data.rows import Dialogue, Message, Row, TextPair
from finetune_trainer.errors import Failure


class Tokenizer(Protocol):
    """What is used of a transformers fast tokenizer."""

    chat_template: Any
    eos_token_id: int | None
    eos_token: str | None
    all_special_ids: list[int]

    def __call__(self, text: str, **options: Any) -> Any:
        """Tokenise."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """Render a conversation."""


@dataclass(frozen=True)
class EncodedRow:
    """Token ids, int32 [T], and which are learned, bool [T]. The first never is."""

    tokens: npt.NDArray[np.int32]
    learned: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Tokens:
    ids: list[int]
    starts: npt.NDArray[np.int64]  # character offsets in the rendering
    ends: npt.NDArray[np.int64]


class Encoder:
    """Encodes rows for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)
        self.has_template = tokenizer.chat_template is not None

    def encode(self, row: Row) -> EncodedRow:
        """Return tokens and mask; raise RowError if the row can not be learned from."""
        if isinstance(row, TextPair):
            if not self.has_template:
                return self._encode_text(row)
            row = Dialogue((Message("user", row.prompt), Message("assistant", row.completion)))
        if not self.has_template:
            raise Failure(
                Reason.MODEL_UNSUPPORTED,
                "the base model has no chat template, so it can not be trained on messages: use "
                "its instruct variant, or data of format PromptCompletion with text",
            )
        return self._encode_dialogue(row)

    def _encode_text(self, pair: TextPair) -> EncodedRow:
        if self._tokenizer.eos_token_id is None:
            raise Failure(Reason.MODEL_UNSUPPORTED, "the base model has no end-of-sequence token")
        tokens = self._tokenize(pair.prompt + pair.completion, add_special_tokens=True)
        learned = (tokens.starts >= len(pair.prompt)) & (tokens.ends > tokens.starts)
        ids = tokens.ids
        if ids[-1:] == [self._tokenizer.eos_token_id]:
            ids, learned = ids[:-1], learned[:-1]
        if not learned.any():
            raise RowError(
                "has a completion that merges into the prompt's last token; begin it with a space"
            )
        return _row([*ids, self._tokenizer.eos_token_id], np.append(learned, True))

    def _encode_dialogue(self, dialogue: Dialogue) -> EncodedRow:
        full = self._render(dialogue.messages)
        tokens = self._tokenize(full, add_special_tokens=False)
        learned = np.zeros(len(tokens.ids), dtype=np.bool_)
        for index, message in enumerate(dialogue.messages):
            if message.role == "assistant" and index >= dialogue.learn_from:
                learned[self._turn(dialogue.messages, index, full, tokens)] = True
        row = _row(tokens.ids, learned)
        if not row.learned.any():
            raise RowError("has no token to learn")
        return row

    def _turn(
        self, messages: Sequence[Message], index: int, full: str, tokens: _Tokens
    ) -> npt.NDArray[np.int64]:
        """Return the indices of an assistant turn's tokens in the full rendering."""
        header = self._render(messages[:index], add_generation_prompt=True)
        if not full.startswith(header):
            raise _unstable("the turns before an assistant turn")
        through = self._render(messages[: index + 1])
        inside = tokens.starts >= len(header)
        if full.startswith(through):
            inside &= tokens.ends <= len(through)
            return self._through_end_of_turn(np.flatnonzero(inside), tokens.ids, last=True)
        # A template that renders earlier turns differently, such as one that drops old reasoning,
        # still closes each turn with the same end-of-turn token.
        return self._through_end_of_turn(np.flatnonzero(inside), tokens.ids, last=False)

    def _through_end_of_turn(
        self, indices: npt.NDArray[np.int64], ids: list[int], *, last: bool
    ) -> npt.NDArray[np.int64]:
        """Cut after the turn's last (or first) special token; keep all if there is none."""
        special = [at for at, index in enumerate(indices) if ids[index] in self._special]
        if special:
            return indices[: special[-1 if last else 0] + 1]
        if not last:
            raise _unstable("an earlier assistant turn, and closes it with no special token")
        return indices

    def _render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    [{"role": m.role, "content": m.content} for m in messages],
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                )
            )
        except TemplateError as error:
            raise RowError("is refused by the model's chat template") from error

    def _tokenize(self, text: str, *, add_special_tokens: bool) -> _Tokens:
        encoded = self._tokenizer(
            text,
            add_special_tokens=add_special_tokens,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        offsets = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        return _Tokens(list(encoded["input_ids"]), offsets[:, 0], offsets[:, 1])


def _row(ids: list[int], learned: npt.NDArray[np.bool_]) -> EncodedRow:
    learned[0] = False  # nothing stands before it to predict it from
    return EncodedRow(np.array(ids, dtype=np.int32), learned)


def _unstable(what: str) -> Failure:
    return Failure(
        Reason.MODEL_UNSUPPORTED,
        f"the base model's chat template changes {what}, so its turns can not be told apart; "
        "set another chat_template in the model's tokenizer_config.json",
    )
