"""Rows that tests encode, and what is learned of them as text."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from finetune_trainer.data.encode import Encoder
from finetune_trainer.data.messages import Message
from finetune_trainer.data.rows import Dialogue, Row
from support.models.tiny_llama import byte_tokenizer


def turns(*contents: str, system: str | None = None, learn_from: int = 0) -> Dialogue:
    """Return a dialogue of a user's and an assistant's turns in turn."""
    messages = [] if system is None else [Message("system", system)]
    messages += [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(contents)]
    return Dialogue(tuple(messages), learn_from)


def pieces(row: Row, template: str | None, **tokenizer: Any) -> list[tuple[bool, str]]:
    """Return the runs of learned and not learned tokens as text."""
    return pieces_by(byte_tokenizer(template, **tokenizer), row)


def marked(row: Row, template: str, special: tuple[str, ...]) -> str:
    """Return the row's text with what is learned between ⟦ and ⟧."""
    runs = pieces_by(byte_tokenizer(template, special), row)
    return "".join(f"⟦{text}⟧" if learned else text for learned, text in runs)


def pieces_by(tokenizer: Any, row: Row) -> list[tuple[bool, str]]:
    """Return the same by a tokenizer."""
    encoded = Encoder(tokenizer, 4096).encode(row)
    assert len(encoded.tokens) == len(encoded.learned)
    pairs = zip(encoded.learned.tolist(), encoded.tokens.tolist(), strict=True)
    return [
        (learned, tokenizer.decode([token for _, token in run]))
        for learned, run in groupby(pairs, key=lambda pair: pair[0])
    ]
