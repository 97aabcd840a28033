"""A row -> tokens, and which of them are learned. Masks come from positions, never from token ids.

A dialogue is rendered once by the model's own chat template and tokenised with character offsets.
What an assistant turn adds to the rendering beyond its header is learned: its text, its tool calls
and its end-of-turn token. White space that a template puts after an end-of-turn token is not
learned, because generation has stopped by then. A token that holds some of the header as well as
some of the text counts as header.

prompt/completion text becomes one user and one assistant turn where the model has a chat template;
otherwise it is prompt + completion + end-of-sequence, and the last two are learned.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune_contract.reasons import Reason
from finetune_trainer.data.control_tokens import ControlTokens
from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.rows import Dialogue, Row, TextPair
from finetune_trainer.data.template import SECONDS, ChatTemplate, Tokenizer
from finetune_trainer.process.errors import Failure

CHARACTERS_A_TOKEN = 16  # of several times as many as tokens of any text have on average
VERSION = 3  # to be raised whenever the same row would encode to other tokens or another mask


@dataclass(frozen=True)
class EncodedRow:
    """Token ids, int32 [T], and which are learned, bool [T]. The first never is."""

    tokens: npt.NDArray[np.int32]
    learned: npt.NDArray[np.bool_]
    warnings: tuple[Kind, ...] = ()


@dataclass(frozen=True)
class _Tokens:
    ids: list[int]
    starts: npt.NDArray[np.int64]  # character offsets in the rendering
    ends: npt.NDArray[np.int64]
    added: npt.NDArray[np.bool_]  # by the tokenizer, such as a beginning of sequence

    def is_space(self, index: int, text: str) -> bool:
        """Tell whether a token stands for white space of the rendering."""
        return text[int(self.starts[index]) : int(self.ends[index])].isspace()


def refuse_unknown(tokens: npt.NDArray[np.int32], vocabulary: int | None) -> None:
    """Raise Failure(ModelUnsupported) for a token that a model of so many does not have."""
    largest = int(tokens.max())
    if vocabulary is not None and largest >= vocabulary:
        raise Failure(
            Reason.MODEL_UNSUPPORTED,
            f"the base model's tokenizer makes token {largest}, but the model has {vocabulary} "
            "(vocab_size in config.json); upload both of one model",
        )


class Encoder:
    """Encodes rows for one tokenizer and refuses those of more than `longest` tokens.

    `vocabulary` is how many tokens the model knows, where that is known; `template_seconds` is what
    the chat template may take of the processor for a row.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        longest: int,
        vocabulary: int | None = None,
        template_seconds: float = SECONDS,
    ) -> None:
        self._tokenizer = _with_exact_offsets(tokenizer)
        self._longest = longest
        self._vocabulary = vocabulary
        added = {i: token for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._special = frozenset(tokenizer.all_special_ids) | set(added)
        self._template = (
            None
            if tokenizer.chat_template is None
            else ChatTemplate(tokenizer, [str(t) for t in added.values()], template_seconds)
        )
        ends, opens = self._template.borders() if self._template else (frozenset[str](),) * 2
        eos = {tokenizer.eos_token} - {None}
        self._control = ControlTokens([str(t) for t in added.values()], ends | eos, opens)

    def encode(self, row: Row) -> EncodedRow:
        """Return tokens and mask; raise RowError if the row can not be learned from."""
        if isinstance(row, TextPair) and self._template is not None:
            row = row.dialogue()
        told = self._control.check(row)
        encoded = self._fitting(self._encode_row(row))
        return replace(encoded, warnings=(*told, *encoded.warnings))

    def _encode_row(self, row: Row) -> EncodedRow:
        if isinstance(row, TextPair):
            return self._encode_text(row)
        if self._template is None:
            raise Failure(
                Reason.MODEL_UNSUPPORTED,
                "the base model has no chat template, so it can not be trained on messages: use "
                "its instruct variant, or data of format PromptCompletion with text",
            )
        return self._encode_dialogue(row, self._template)

    def _fitting(self, row: EncodedRow) -> EncodedRow:
        if len(row.tokens) > self._longest:
            raise self._too_long(str(len(row.tokens)))
        refuse_unknown(row.tokens, self._vocabulary)
        return row

    def _too_long(self, count: str) -> RowError:
        said = f"has {count} tokens, more than training.sequenceLength {self._longest}"
        return RowError(Kind.TOO_LONG, said)

    def _encode_text(self, pair: TextPair) -> EncodedRow:
        if self._tokenizer.eos_token_id is None:
            raise Failure(Reason.MODEL_UNSUPPORTED, "the base model has no end-of-sequence token")
        tokens = self._tokenize(pair.prompt + pair.completion, add_special_tokens=True)
        learned = (tokens.starts >= len(pair.prompt)) & ~tokens.added
        ids = tokens.ids
        if ids[-1:] == [self._tokenizer.eos_token_id]:
            ids, learned = ids[:-1], learned[:-1]
        if not learned.any():
            raise RowError(
                Kind.NO_SUPERVISED_TOKEN,
                "has a completion that merges into the prompt's last token; begin it with a space",
            )
        return _row([*ids, self._tokenizer.eos_token_id], np.append(learned, True))

    def _encode_dialogue(self, dialogue: Dialogue, template: ChatTemplate) -> EncodedRow:
        rendering = template.render(dialogue)
        tokens = self._tokenize(rendering.text, add_special_tokens=False)
        if len(tokens.ids) > self._longest:  # before each of its turns is looked for
            raise self._too_long(str(len(tokens.ids)))
        rendering.check()
        learned = np.zeros(len(tokens.ids), dtype=np.bool_)
        for start, end in rendering.spans():
            inside = np.flatnonzero((tokens.starts >= start) & (tokens.ends <= end))
            learned[self._through_end_of_turn(inside, tokens, rendering.text)] = True
        row = _row(tokens.ids, learned, rendering.warnings())
        if not row.learned.any():
            raise RowError(Kind.NO_SUPERVISED_TOKEN, "has no token to learn")
        return row

    def _through_end_of_turn(
        self, indices: npt.NDArray[np.int64], tokens: _Tokens, text: str
    ) -> npt.NDArray[np.int64]:
        """Leave out what stands after the end of a turn: white space after the special token that
        closes it, and whatever a template puts after the tokenizer's own end."""
        kept = first = len(indices)
        space = [tokens.is_space(index, text) for index in indices]
        closes = [tokens.ids[index] in self._special for index in indices]
        while first and (closes[first - 1] or space[first - 1]):
            first -= 1
        ids = [tokens.ids[index] for index in indices[first:]]
        if self._tokenizer.eos_token_id in ids:
            return indices[: first + ids.index(self._tokenizer.eos_token_id) + 1]
        while kept and space[kept - 1]:
            kept -= 1
        return indices[:kept] if kept and closes[kept - 1] else indices

    def _tokenize(self, text: str, *, add_special_tokens: bool) -> _Tokens:
        beginning = CHARACTERS_A_TOKEN * self._longest
        if len(text) > 2 * beginning:  # where that is too much, all of it need not be looked at
            count = len(self._tokenizer(text[:beginning], add_special_tokens=False)["input_ids"])
            if count > self._longest:
                raise self._too_long(f"more than {count}")
        encoded = self._tokenizer(
            text,
            add_special_tokens=add_special_tokens,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_attention_mask=False,
        )
        offsets = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        added = np.array(encoded["special_tokens_mask"], dtype=np.bool_)
        return _Tokens(list(encoded["input_ids"]), offsets[:, 0], offsets[:, 1], added)


def _with_exact_offsets(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer of the same tokens whose offsets hold a token's white space too.

    GPT-NeoX's, RoBERTa's and their like leave it out (`trim_offsets`), so that one could not tell
    on which side of a border it stands.
    """
    backend = tokenizer.backend_tokenizer
    specification = json.loads(backend.to_str())
    if not _untrimmed(specification["post_processor"]):
        return tokenizer
    exact = copy.deepcopy(tokenizer)
    again = type(backend).from_str(json.dumps(specification))
    exact.backend_tokenizer.post_processor = again.post_processor
    return exact


def _untrimmed(processor: dict[str, Any] | None) -> bool:
    """Change a post-processor so that it does not trim; tell whether it did."""
    if processor is None:
        return False
    trimmed = bool(processor.get("trim_offsets"))
    if trimmed:
        processor["trim_offsets"] = False
    return any([trimmed, *map(_untrimmed, processor.get("processors", ()))])


def _row(
    ids: list[int], learned: npt.NDArray[np.bool_], warnings: tuple[Kind, ...] = ()
) -> EncodedRow:
    learned[0] = False  # nothing stands before it to predict it from
    return EncodedRow(np.array(ids, dtype=np.int32), learned, warnings)
