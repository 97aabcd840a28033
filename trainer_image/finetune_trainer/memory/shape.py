"""What of a model decides its memory, read from config.json and headers of safetensors files."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

_LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
# Linear layers are quantised; stacks of experts are not, nor what stands at the model's two ends.
_NEVER_QUANTISED = (".experts.", "embed", "lm_head", "norm", "wte", "wpe", ".gate.weight", "router")
_WIDTHS = {"F64": 8, "F32": 4}  # bytes of an element, where it has not 2
_SCALES = ("_scale_inv", "_scale")  # of weights stored in 8 bits; they are no weights


@dataclass(frozen=True)
class TensorHeader:
    """One tensor of a safetensors file."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class AdapterShape:
    """The trainable weights.

    `inputs` is the number of values per token that the adapted layers keep for the backward pass.
    `folded` elements of bare parameters get their update added to a second copy of them.
    """

    parameters: int
    inputs: int
    folded: int = 0


@dataclass(frozen=True)
class ModelShape:
    """A decoder. Widths are in elements; those of an absent part are 0."""

    layers: int
    moe_layers: int
    hidden: int
    vocabulary: int
    queries: int  # heads x width of a query, as of a key
    keys: int
    values: int
    outputs: int  # query heads x width of a value
    normed: int  # of all that a layer's norms take, in fp32
    softcapped_heads: int  # query heads whose scores have a soft cap
    dense: int  # of the MLP of a layer without experts
    experts: int  # of all experts that see one token
    routes: int  # experts that see one token
    shared: int  # of the experts that see every token
    elements: int  # all parameters
    quantisable: int  # of them in linear layers
    largest: int  # of them in the largest decoder layer or embedding
    stored: int  # bytes of all, in the number formats of the files
    whole_logits: bool = False  # all positions' exist at once, not a chunk's

    @classmethod
    def of(cls, config: Mapping[str, Any], headers: Mapping[str, TensorHeader]) -> ModelShape:
        """Return the shape. Raises KeyError for a number that config.json lacks."""
        config = config.get("text_config") or config
        layers = _number(config, "num_hidden_layers", "n_layer", "num_layers")
        hidden = _number(config, "hidden_size", "n_embd", "d_model")
        heads = _number(config, "num_attention_heads", "n_head")
        kv_heads = config.get("num_key_value_heads") or heads
        width = config.get("head_dim") or hidden // heads
        value_width = width
        if config.get("kv_lora_rank"):  # multi-head latent attention, arXiv 2405.04434
            width = config["qk_nope_head_dim"] + config["qk_rope_head_dim"]
            value_width, kv_heads = width, heads  # values are padded to the keys' width
        intermediate = config.get("intermediate_size") or config.get("n_inner") or 4 * hidden
        routes = config.get("num_experts_per_tok") or 0
        expert = config.get("moe_intermediate_size") or intermediate
        moe_layers = _moe_layers(headers, layers) if routes else 0
        return cls(
            layers=layers,
            moe_layers=moe_layers,
            hidden=hidden,
            vocabulary=config["vocab_size"],
            queries=heads * width,
            keys=kv_heads * width,
            values=kv_heads * value_width,
            outputs=heads * value_width,
            normed=_normed(headers, layers, hidden, (heads + kv_heads) * width),
            softcapped_heads=heads if config.get("attn_logit_softcapping") else 0,
            dense=intermediate,
            experts=routes * expert if moe_layers else 0,
            routes=routes if moe_layers else 0,
            shared=_shared(config, expert) if moe_layers else 0,
            **_elements(headers, layers),
        )


def _number(config: Mapping[str, Any], *names: str) -> int:
    """Return the first field that is there; models call the same thing by several names."""
    for name in names:
        if config.get(name) is not None:
            return int(config[name])
    raise KeyError(names[0])


def _shared(config: Mapping[str, Any], expert: int) -> int:
    return config.get("shared_expert_intermediate_size") or expert * (
        config.get("n_shared_experts") or 0
    )


def _moe_layers(headers: Mapping[str, TensorHeader], layers: int) -> int:
    found = {_layer(name) for name in headers if ".experts." in name}
    return len({layer for layer in found if layer is not None and layer < layers})


def _normed(headers: Mapping[str, TensorHeader], layers: int, hidden: int, heads: int) -> int:
    """Return the width of all norms of the last layer; those of heads norm every head."""
    names = [n for n in headers if _layer(n) == layers - 1 and n.endswith("norm.weight")]
    per_head = sum(n.endswith("q_norm.weight") for n in names)
    whole = [n for n in names if not n.endswith(("q_norm.weight", "k_norm.weight"))]
    return sum(headers[n].elements for n in whole) + per_head * heads if names else 2 * hidden


def _layer(name: str) -> int | None:
    found = _LAYER.search(f".{name}")
    return int(found[1]) if found else None


class _Elements(TypedDict):
    elements: int
    stored: int
    quantisable: int
    largest: int


def _elements(headers: Mapping[str, TensorHeader], layers: int) -> _Elements:
    """Return sums over the tensors that are loaded: no scales, no layers for multi-token heads."""
    total, stored, quantisable = 0, 0, 0
    parts: dict[str, int] = defaultdict(int)
    for name, header in headers.items():
        layer = _layer(name)
        if name.endswith(_SCALES) or (layer is not None and layer >= layers):
            continue
        total += header.elements
        stored += header.elements * _WIDTHS.get(header.dtype, 2)
        parts[name if layer is None else str(layer)] += header.elements
        if len(header.shape) == 2 and not any(word in name for word in _NEVER_QUANTISED):
            quantisable += header.elements
    return {
        "elements": total,
        "stored": stored,
        "quantisable": quantisable,
        "largest": max(parts.values(), default=0),
    }
