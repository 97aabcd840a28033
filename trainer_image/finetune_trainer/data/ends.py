"""The tokens that end an assistant's turn, as rows teach them.

Learned by encoding dialogues of our own: a chat template may end turns with a token that neither
tokenizer nor model name as their end, and a turn that calls a tool with another than an answer.
"""

from __future__ import annotations

from typing import Any

from finetune_trainer.data.encode import Encoder
from finetune_trainer.data.faults import RowError
from finetune_trainer.data.messages import Message, ToolCall
from finetune_trainer.data.rows import Dialogue

LONGEST = 2**16  # tokens of a dialogue below, with all that a template adds

_ASKED = Message("user", "probe_question")
_CALL = Message("assistant", "", (ToolCall("probe_name", {"probe_key": "probe_value"}),))
_TOOL = {"type": "function", "function": {"name": "probe_name", "parameters": {"type": "object"}}}
ANSWER = Dialogue((_ASKED, Message("assistant", "probe_answer")))
CALLS = (Dialogue((_ASKED, _CALL), tools=(_TOOL,)), Dialogue((_ASKED, _CALL)))


def turn_ends(tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end a turn by the tokenizer's chat template.

    None where there is no template, or where it ends turns with text.
    """
    if tokenizer.chat_template is None:
        return frozenset()
    encoder = Encoder(tokenizer, LONGEST)
    added = tokenizer.added_tokens_decoder
    special = {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
    # A call's own last token may have been added to the vocabulary too: a turn goes on after it.
    answers = _last(tokenizer, encoder, (ANSWER,)) & {*special, *added}
    return frozenset(answers | (_last(tokenizer, encoder, CALLS) & special))


def control_tokens(tokenizer: Any) -> frozenset[int]:
    """Return the special tokens that the chat template puts around turns, their ends among them."""
    if tokenizer.chat_template is None:
        return frozenset()
    try:
        written = Encoder(tokenizer, LONGEST).encode(ANSWER).tokens.tolist()
    except RowError:
        written = []
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(special.intersection(written)) | turn_ends(tokenizer)


def _last(tokenizer: Any, encoder: Encoder, rows: tuple[Dialogue, ...]) -> set[int]:
    """Return the last token but white space that the first good one of some rows teaches."""
    for row in rows:
        try:
            encoded = encoder.encode(row)
        except RowError:
            continue
        learned = reversed(encoded.tokens[encoded.learned].tolist())
        words = (token for token in learned if not tokenizer.decode([token]).isspace())
        return {next(words)}
    return set()
