"""Which weight matrices of a model play which role: by the table, else by inspection.

Works on a loaded model, on one whose parameters ZeRO-3 has sharded, and on an empty one on the
meta device, so that what can not be adapted is refused before any weights are downloaded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd
from transformers.pytorch_utils import Conv1D

from finetune_contract.reasons import Reason
from finetune_contract.recipe import LoraTarget
from finetune_trainer.model.architectures import ARCHITECTURES
from finetune_trainer.process.errors import Failure

log = logging.getLogger(__name__)


# What a matrix is called where its owner's name tells nothing.
_LEAVES = {
    LoraTarget.ATTENTION: ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj"),
    LoraTarget.MLP: ("gate_proj", "up_proj", "down_proj", "gate_up_proj"),
}


# Whose bare parameters are sure to be used by their owner's forward pass, where alone PEFT adds an
# update. Others, such as the convolution of linear attention, may be read from outside.
_BARE = (LoraTarget.EXPERTS, LoraTarget.ROUTER)


class Kind(Enum):
    """How a weight is held: in a layer of its own, or as a bare parameter."""

    LINEAR = "linear"
    EMBEDDING = "embedding"
    PARAMETER = "parameter"


@dataclass(frozen=True)
class Weight:
    """One matrix, or a stack of `count` matrices, that maps `inputs` to `outputs` dimensions.

    `name` is the full name of the layer, or of the bare parameter.
    """

    name: str
    kind: Kind
    inputs: int
    outputs: int
    count: int = 1


@dataclass(frozen=True)
class RoleMap:
    """The weights per role. `known` is False where they were found by inspection."""

    model_type: str
    known: bool
    weights: Mapping[LoraTarget, tuple[Weight, ...]]

    def asked(self, targets: Iterable[LoraTarget]) -> dict[LoraTarget, tuple[Weight, ...]]:
        """Return the weights of the roles asked for.

        Raises Failure(ModelUnsupported) for a role that no weight plays.
        """
        found = {target: self.weights.get(target, ()) for target in targets}
        for target, weights in found.items():
            if not weights:
                has = ", ".join(t for t in LoraTarget if self.weights.get(t))
                raise Failure(
                    Reason.MODEL_UNSUPPORTED,
                    f"the base model ({self.model_type}) has no layer in the role {target} of "
                    f"spec.lora.targets; it has {has or 'none that is known'}",
                )
        return found


def map_roles(model: Any) -> RoleMap:
    """Return the roles of a transformers causal language model."""
    model_type = model.config.model_type
    table = ARCHITECTURES.get(model_type)
    sides = _embeddings(model)
    found: dict[LoraTarget, list[Weight]] = {role: [weight] for role, weight in sides.items()}
    for layer, below, weight in _layer_weights(model):
        role = _by_inspection(layer, below) if table is None else _by_table(table, below)
        if table is None and weight.kind is Kind.PARAMETER and role not in _BARE:
            role = None
        if role is None:
            log.info("%s plays no role of spec.lora.targets", weight.name)
        else:
            found.setdefault(role, []).append(weight)
    roles = RoleMap(model_type, table is not None, {r: tuple(w) for r, w in found.items()})
    if not roles.known:
        counts = ", ".join(f"{role} {len(weights)}" for role, weights in roles.weights.items())
        log.warning("model_type %s is mapped by inspection: %s", model_type, counts)
    return roles


def _embeddings(model: Any) -> dict[LoraTarget, Weight]:
    """Return the input and the output embedding, where they are layers that LoRA can adapt."""
    names = {id(module): name for name, module in model.named_modules()}
    found = {}
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    for role, module in ((LoraTarget.EMBEDDINGS, inputs), (LoraTarget.HEAD, outputs)):
        if id(module) in names and isinstance(module, (nn.Embedding, nn.Linear)):
            found[role] = _weight(names[id(module)], module)
    return found


def _layer_weights(model: Any) -> Iterator[tuple[nn.Module, str, Weight]]:
    """Yield (decoder layer, path below it, weight) for all matrices of all decoder layers."""
    stack, layers = _decoder_layers(model)
    for index, layer in enumerate(layers):
        for name, module in layer.named_modules():
            if isinstance(module, nn.Linear | Conv1D):
                yield layer, name, _weight(f"{stack}.{index}.{name}", module)
                continue
            if isinstance(module, _ConvNd):
                continue
            for own, parameter in module.named_parameters(recurse=False):
                path = f"{name}.{own}" if name else own
                weight = _parameter(f"{stack}.{index}.{path}", parameter, module)
                if weight is not None:
                    yield layer, path, weight


def _decoder_layers(model: Any) -> tuple[str, nn.ModuleList]:
    """Return the outermost list of most layers in the decoder, and its name."""
    decoder = model.get_decoder()  # a model of text and pictures has lists besides
    inside = {id(module) for module in decoder.modules()}
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and id(module) in inside
    ]
    outermost = [
        (name, found)
        for name, found in lists
        if not any(name.startswith(f"{other}.") for other, _ in lists)
    ]
    if not outermost:
        raise Failure(
            Reason.MODEL_UNSUPPORTED,
            f"the base model ({model.config.model_type}) has no list of decoder layers, so "
            "spec.lora.targets can not be mapped",
        )
    return max(outermost, key=lambda named: len(named[1]))


def _weight(name: str, module: Any) -> Weight:
    if isinstance(module, Conv1D):  # GPT-2's linear layer, which holds its matrix transposed
        return Weight(name, Kind.LINEAR, module.nx, module.nf)
    if isinstance(module, nn.Linear):
        return Weight(name, Kind.LINEAR, module.in_features, module.out_features)
    return Weight(name, Kind.EMBEDDING, module.num_embeddings, module.embedding_dim)


def _parameter(name: str, parameter: Any, owner: nn.Module) -> Weight | None:
    """Return a bare parameter of 2 or 3 dimensions; None for norms and biases."""
    shape = tuple(getattr(parameter, "ds_shape", parameter.shape))  # ZeRO-3 leaves `shape` empty
    if name.endswith("bias") or len(shape) not in (2, 3):
        return None
    count, outputs, inputs = shape if len(shape) == 3 else (1, *shape)
    if getattr(owner, "is_transposed", False):
        inputs, outputs = outputs, inputs
    return Weight(name, Kind.PARAMETER, inputs, outputs, count)


def _by_table(table: Mapping[LoraTarget, tuple[str, ...]], path: str) -> LoraTarget | None:
    return next((role for role, names in table.items() if path in names), None)


def _by_inspection(layer: nn.Module, path: str) -> LoraTarget | None:
    """Return the role that a weight's place in its layer tells."""
    parts = path.split(".")
    owners = parts[:-1]
    if any("attn" in part or "attention" in part for part in owners):
        return LoraTarget.ATTENTION
    if any(part.startswith("shared") and not part.endswith("gate") for part in owners):
        return LoraTarget.SHARED_EXPERTS
    if "experts" in owners:
        return LoraTarget.EXPERTS
    if _routes(layer, parts):
        return LoraTarget.ROUTER
    if not owners or any(word in part for part in owners for word in ("mlp", "ffn", "feed")):
        return LoraTarget.MLP
    return next((role for role, leaves in _LEAVES.items() if parts[-1] in leaves), None)


def _routes(layer: nn.Module, parts: list[str]) -> bool:
    """Tell whether a weight stands beside experts and is none: it decides who gets a token."""
    for depth in range(len(parts)):
        block = layer.get_submodule(".".join(parts[:depth]))
        if isinstance(getattr(block, "experts", None), nn.Module):
            return parts[depth] != "experts" and any(
                word in parts[depth] for word in ("gate", "router")
            )
    return False
