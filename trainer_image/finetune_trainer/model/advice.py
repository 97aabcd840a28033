"""What of a base model training can not mend, told before it begins.

A base model may never have seen the tokens that a chat template writes. Their rows of the
embeddings are then as they were made: nearly zero, or one like another. An adapter on other weights
does not change them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from finetune_contract.foreign import printable
from finetune_contract.recipe import LoraTarget
from finetune_contract.resolved import LONGEST_ADVICE
from finetune_trainer.data.ends import control_tokens, turn_ends
from finetune_trainer.model.tokenizer import load_tokenizer

log = logging.getLogger(__name__)

# What tables of embeddings, and of the output's, are called by architectures.
TABLES = (
    *("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight"),
    *("lm_head.weight", "embed_out.weight"),
)
ORDINARY = 256  # rows that tell how long a row is; the first are often bytes and punctuation
SMALL = 0.05  # of the length of an ordinary row
SHOWN = 6


def advice(base: Path, words: Path, targets: Collection[LoraTarget]) -> tuple[str, ...]:
    """Return it for the weights in directory `base`, and the tokenizer in directory `words`."""
    tokenizer = load_tokenizer(words)
    if tokenizer.chat_template is None:
        return ()
    said = []
    if not turn_ends(tokenizer):
        said.append(
            "the chat template ends turns with text, not with a token, so generation does not stop "
            "by itself: give whatever serves the adapter a stop text, or the model another template"
        )
    if not {LoraTarget.EMBEDDINGS, LoraTarget.HEAD} <= set(targets):
        special = [i for i, token in tokenizer.added_tokens_decoder.items() if token.special]
        untrained = untrained_tokens(base, sorted(control_tokens(tokenizer)), special)
        if untrained:
            names = tokenizer.convert_ids_to_tokens(untrained[:SHOWN])
            said.append(
                f"the base model was never trained on {', '.join(names)}, which its chat template "
                "writes: add Embeddings and Head to lora.targets, or take its instruct variant"
            )
    for line in said:
        log.warning("%s", line)
    return tuple(printable(line, LONGEST_ADVICE) for line in said)


def untrained_tokens(base: Path, tokens: list[int], special: Iterable[int]) -> list[int]:
    """Return which of some tokens have a row of nearly zeros, or that of another special one."""
    found: set[int] = set()
    for table in _tables(base):
        size = table.get_shape()[0]
        asked = [token for token in tokens if token < size]
        ordinary = torch.stack([_row(table, i) for i in range(0, size, -(-size // ORDINARY))])
        least = SMALL * ordinary.norm(dim=1).median()
        others = {token: _row(table, token) for token in {*special, *asked} if token < size}
        for token in asked:
            row = others[token]
            same = any(row.equal(other) for one, other in others.items() if one != token)
            if same or row.norm() <= least:
                found.add(token)
    return sorted(found)


def _tables(base: Path) -> Iterator[Any]:
    """Yield the tables of embeddings, of which single rows can be read."""
    for path in sorted(base.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                if name.endswith(TABLES):
                    yield file.get_slice(name)


def _row(table: Any, token: int) -> Tensor:
    row: Tensor = table[token : token + 1][0]
    return row.float()
