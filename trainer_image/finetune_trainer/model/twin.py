"""A small random model of a base's own class: what its code does, found out before any weights.

Counts of layers, heads, experts and tokens are cut; the width of a head is kept, because tables of
positions are made for it.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from finetune_contract.reasons import Reason
from finetune_trainer.process.errors import Failure

log = logging.getLogger(__name__)

MOST_PARAMETERS = 60_000_000
VOCABULARY = 512
IDS = (3, 30)  # tokens that every vocabulary has
LENGTH, SHARED = 12, 8  # tokens of a probe; of them those that two probes have in common
LEAK = 1e-3  # of the logits' spread, far above rounding
NOISE = 0.05  # so that what a class begins at zero shows

_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")
_KEY_HEADS = ("num_key_value_heads", "num_kv_heads")
_WIDTHS = ("hidden_size", "n_embd", "d_model", "embedding_dim")
_MOST = {
    **dict.fromkeys(_DEPTHS, 4),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts"), 8),
    **dict.fromkeys(("num_experts_per_tok", "moe_k"), 2),
    **dict.fromkeys(("n_group", "topk_group"), 1),
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
}


def small_twin(model: Any) -> Any | None:
    """Return a small random model of the class, on the CPU and without dropout; None if none works.

    The model may be empty, adapted or sharded: only its class and configuration are looked at.
    """
    try:
        config = _shrunk(model.config)
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in type(model)(config).parameters())
        if size > MOST_PARAMETERS:
            log.info("a small model of model_type %s has %d parameters", config.model_type, size)
            return None
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            twin = type(model)(config).float().eval()
            for parameter in twin.parameters():
                parameter.add_(NOISE * torch.randn_like(parameter))
            twin(input_ids=probe_ids(), use_cache=False)
    except Exception as error:  # noqa: BLE001 - code of others, on numbers that it never saw
        log.info("no small model of model_type %s: %r", model.config.model_type, error)
        return None
    return twin


def probe_ids(variant: int = 0) -> Tensor:
    """Return token ids, int64 [1, LENGTH]; of each variant the first SHARED are the same."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(*IDS, (1, LENGTH), generator=draw)
    ids[:, SHARED:] += variant
    return ids


def check_causal(model: Any) -> None:
    """Refuse a model whose tokens see those after them: it would read what it is to predict.

    Raises Failure(ModelUnsupported).
    """
    kind = model.config.model_type
    twin = small_twin(model)
    if twin is None:
        log.warning("model_type %s could not be checked for causal attention", kind)
        return
    with torch.no_grad():
        first, second = (
            twin(input_ids=probe_ids(variant), use_cache=False).logits.float()
            for variant in range(2)
        )
    apart = (first - second)[:, :SHARED].abs().max()
    if not apart <= LEAK * first.std():
        raise Failure(
            Reason.MODEL_UNSUPPORTED,
            f"the base model (model_type {kind}) is no causal language model: its tokens see those "
            "after them, so it would read what it is to predict; choose a decoder",
        )


def _shrunk(config: Any) -> Any:
    small = copy.deepcopy(config)
    parts = [small, *(getattr(small, name, None) for name in getattr(small, "sub_configs", ()))]
    for part in parts:
        if part is not None:
            _shrink(part)
    return small


def _shrink(config: Any) -> None:
    fields = {name: value for name, value in config.to_dict().items() if value is not None}
    changes: dict[str, Any] = {
        name: most
        for name, most in _MOST.items()
        if isinstance(fields.get(name), int) and fields[name] > most
    }
    depth, heads, width = (_first(fields, names) for names in (_DEPTHS, _HEADS, _WIDTHS))
    for name, value in fields.items():
        if isinstance(value, list | tuple) and len(value) == depth:
            changes[name] = _few(value, _MOST[_DEPTHS[0]])
        elif name.endswith("_token_id"):
            changes[name] = 1
    if heads and width:
        keys = _first(fields, _KEY_HEADS) or heads
        few_keys = min(2, keys)
        few = few_keys * (2 if heads > keys else 1)
        changes |= dict.fromkeys(fields.keys() & set(_HEADS), few)
        changes |= dict.fromkeys(fields.keys() & set(_KEY_HEADS), few_keys)
        changes |= dict.fromkeys(fields.keys() & set(_WIDTHS), width // heads * few)
        if {"mamba_n_heads", "mamba_d_head", "mamba_expand"} <= fields.keys():
            inner = fields["mamba_expand"] * (width // heads * few)
            changes["mamba_n_heads"] = inner // fields["mamba_d_head"]
    for name, value in changes.items():
        setattr(config, name, value)


def _few(layers: Sequence[Any], most: int) -> list[Any]:
    """Return so many of what each layer is told; where that is a kind of layer, of every kind."""
    kinds = dict.fromkeys(layers) if all(isinstance(layer, str) for layer in layers) else ()
    return [*kinds, *layers][:most]


def _first(fields: dict[str, Any], names: tuple[str, ...]) -> int | None:
    found = (fields.get(name) for name in names)
    return next((value for value in found if isinstance(value, int)), None)
