"""LoRA adapters (arXiv 2106.09685) on the weights that play the roles asked for.

PEFT leaves out silently what its matching does not reach, so every weight is given by its full
name, and what truly got an adapter is counted afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer, ParamWrapper
from peft.utils import transformers_weight_conversion as conversion

from finetune_contract.reasons import Reason
from finetune_contract.recipe import LoraRecipe, LoraTarget
from finetune_contract.resolved import RoleCoverage
from finetune_trainer.adapter.roles import Kind, RoleMap, Weight
from finetune_trainer.process.errors import Failure

log = logging.getLogger(__name__)

ADAPTER = "default"


@dataclass(frozen=True)
class Adapted:
    """The PEFT model and what its adapters reach."""

    model: Any
    coverage: tuple[RoleCoverage, ...]


def adapt(model: Any, recipe: LoraRecipe, roles: RoleMap, seed: int) -> Adapted:
    """Return the PEFT model: base frozen, adapters trainable and fp32.

    The seed is set here, so that every rank of every layout begins with the same adapter. Raises
    Failure(ModelUnsupported), naming role and layers, when less than asked can be adapted.
    """
    asked = roles.asked(recipe.targets)
    refuse_bare(model, asked, recipe)
    torch.manual_seed(seed)
    with _exact_names():
        adapted = get_peft_model(model, _config(recipe, asked))
    return Adapted(adapted, _coverage(adapted, asked))


def refuse_bare(
    model: Any, asked: Mapping[LoraTarget, tuple[Weight, ...]], recipe: LoraRecipe
) -> None:
    """Refuse dropout and DoRA where PEFT has them for layers only, in training or in loading.

    The model may be empty. Raises Failure(ModelUnsupported).
    """
    layers = [w.name for role in asked.values() for w in role if w.kind is not Kind.PARAMETER]
    misread = _misread(model, layers) if recipe.dora else set()
    field = "spec.lora.dora" if recipe.dora else "spec.lora.dropout"
    for role, weights in asked.items():
        bare = [w.name for w in weights if w.kind is Kind.PARAMETER or w.name in misread]
        if bare and (recipe.dora or recipe.dropout):
            raise Failure(
                Reason.MODEL_UNSUPPORTED,
                f"{field} does not work with spec.lora.targets {role}: PEFT adapts {bare[0]} of "
                "the base model as a bare parameter; leave out one of the two",
            )


def adapted_weights(model: Any) -> dict[str, Kind]:
    """Return the full name in the base model of every weight with an adapter."""
    found = {}
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer) or ADAPTER not in module.scaling:
            continue
        base = name.removeprefix("base_model.model.").replace(".base_layer", "")
        if isinstance(module, ParamWrapper):
            found[f"{base}.{module.parameter_name}"] = Kind.PARAMETER
        elif isinstance(module.get_base_layer(), torch.nn.Embedding):
            found[base] = Kind.EMBEDDING
        else:
            found[base] = Kind.LINEAR
    return found


def loadable_targets(model: Any) -> tuple[list[str], list[str]]:
    """Return target_modules and target_parameters with which plain PEFT finds every weight again.

    Layers whose names PEFT would take for an expert's are given as their parameters: the adapter's
    tensors have the same names either way.
    """
    kinds = adapted_weights(model)
    layers = sorted(name for name, kind in kinds.items() if kind is not Kind.PARAMETER)
    misread = _misread(model.get_base_model(), layers)
    parameters = [name for name, kind in kinds.items() if kind is Kind.PARAMETER]
    return (
        [name for name in layers if name not in misread],
        sorted(parameters + [f"{name}.weight" for name in misread]),
    )


def _misread(base: Any, layers: Iterable[str]) -> set[str]:
    """Return the layers that PEFT, given their full names, would take for experts."""
    config = LoraConfig(target_modules=list(layers))
    conversion.convert_peft_config_for_transformers(config, base, None)
    return set(layers) - set(config.target_modules)


def _config(recipe: LoraRecipe, asked: Mapping[LoraTarget, tuple[Weight, ...]]) -> LoraConfig:
    weights = [weight for role in asked.values() for weight in role]
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        use_rslora=recipe.rslora,
        use_dora=recipe.dora,
        target_modules=[w.name for w in weights if w.kind is not Kind.PARAMETER],
        target_parameters=[w.name for w in weights if w.kind is Kind.PARAMETER],
    )


@contextmanager
def _exact_names() -> Iterator[None]:
    """Keep PEFT from reading the names as those of transformers 4.

    It takes every `gate_proj`, `up_proj` and `down_proj` of a mixture of experts for an expert's,
    and so drops dense layers and shared experts.
    """
    rewrite = conversion.convert_peft_config_for_transformers
    conversion.convert_peft_config_for_transformers = lambda *_args, **_named: None
    try:
        yield
    finally:
        conversion.convert_peft_config_for_transformers = rewrite


def _coverage(
    model: Any, asked: Mapping[LoraTarget, tuple[Weight, ...]]
) -> tuple[RoleCoverage, ...]:
    reached = adapted_weights(model)
    coverage = []
    for role, weights in asked.items():
        missed = [weight.name for weight in weights if weight.name not in reached]
        if missed:
            raise Failure(
                Reason.MODEL_UNSUPPORTED,
                f"{len(missed)} of {len(weights)} layers in the role {role} of spec.lora.targets "
                f"got no adapter, such as {missed[0]}",
            )
        log.info("LoRA on %s: %d of %d weights", role, len(weights), len(weights))
        coverage.append(RoleCoverage(role=role, found=len(weights), adapted=len(weights)))
    stray = reached.keys() - {weight.name for weights in asked.values() for weight in weights}
    if stray:
        raise Failure(
            Reason.MODEL_UNSUPPORTED,
            f"{len(stray)} layers got an adapter that no role of spec.lora.targets asks for, such "
            f"as {min(stray)}",
        )
    return tuple(coverage)
