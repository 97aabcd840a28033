"""What a base model makes of a token's place in its row, settled for the whole run.

transformers chooses some rotary frequencies anew for each batch, by its longest row, so that a row
would be scored by its neighbours' lengths. Here `training.sequenceLength` decides, once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from torch import nn

from finetune_contract.reasons import Reason
from finetune_trainer.process.errors import Failure

log = logging.getLogger(__name__)

_TABLES = ("position", "wpe")  # in the names of tables of positions
_RELATIVE = ("bias", "relative", "ids")  # and of what is none


def fix_frequencies(config: Any, sequence_length: int) -> None:
    """Leave LongRoPE (arXiv 2402.13753) one set of factors: the long ones for long sequences."""
    for rope in _ropes(config):
        if rope["rope_type"] == "longrope":
            long = sequence_length > rope["original_max_position_embeddings"]
            kept = "long_factor" if long else "short_factor"
            rope |= {"short_factor": rope[kept], "long_factor": rope[kept]}


def check_length(model: Any, sequence_length: int) -> None:
    """Refuse sequences for which a model has no positions; the model may be empty.

    Raises Failure(ModelUnsupported).
    """
    config = model.config.get_text_config()
    longest = getattr(config, "max_position_embeddings", None)
    for size in _tables(model.get_decoder()):
        # A table may have rows beyond them, as OPT's has.
        most = size if longest is None else min(size, longest)
        if sequence_length > most:
            raise _too_long(sequence_length, f"has a table of {most} positions", most)
    if longest is None or sequence_length <= longest:
        return
    if any(rope["rope_type"] == "dynamic" for rope in _ropes(config)):
        why = f"beyond {longest} tokens chooses its rotary frequencies by the longest row"
        raise _too_long(sequence_length, why, longest)
    log.warning(
        "training.sequenceLength is %d, but max_position_embeddings of the base model is %d",
        *(sequence_length, longest),
    )


def longest_row(model: Any) -> int | None:
    """Return the most tokens for which a model has positions; None where there is no bound."""
    told = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0
    bounds = [*_tables(model), *([told] if told > 0 else [])]  # XLNet tells -1
    return min(bounds, default=None)


def follows_longest_row(config: Any) -> bool:
    """Tell whether a row's positions depend on how long the rows beside it are."""
    return any(rope["rope_type"] == "longrope" for rope in _ropes(config))


def _too_long(sequence_length: int, why: str, most: int) -> Failure:
    return Failure(
        Reason.MODEL_UNSUPPORTED,
        f"spec.training.sequenceLength is {sequence_length}, but the base model {why}; set it to "
        f"{most} at most",
    )


def _ropes(config: Any) -> Iterator[dict[str, Any]]:
    """Yield the rotary parameters, of each kind of layer where they differ."""
    found = getattr(config.get_text_config(), "rope_parameters", None) or {}
    for rope in (found, *found.values()):
        if isinstance(rope, dict) and "rope_type" in rope:
            yield rope


def _tables(decoder: nn.Module) -> Iterator[int]:
    """Yield how many positions each table has."""
    embeddings = (
        # With a pad token, positions begin after it, as RoBERTa's do.
        (name, module.num_embeddings - (0 if (pad := module.padding_idx) is None else pad + 1))
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Embedding)
    )
    buffers = ((name, len(held)) for name, held in decoder.named_buffers() if held.dim() == 2)
    for name, size in (*embeddings, *buffers):
        leaf = name.rpartition(".")[2]
        if any(word in leaf for word in _TABLES) and not any(word in leaf for word in _RELATIVE):
            yield size
