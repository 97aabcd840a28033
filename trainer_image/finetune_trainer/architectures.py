"""Which linear layers play which role, by `model_type` of config.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finetune_contract.reasons import Reason
from finetune_contract.recipe import LoraTarget
from finetune_trainer.errors import Failure

_LLAMA = {
    LoraTarget.ATTENTION: ("q_proj", "k_proj", "v_proj", "o_proj"),
    LoraTarget.MLP: ("gate_proj", "up_proj", "down_proj"),
}

MODULES: dict[str, dict[LoraTarget, tuple[str, ...]]] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "smollm3": _LLAMA,
}


def module_names(
    config: dict[str, Any], targets: Sequence[LoraTarget]
) -> dict[LoraTarget, tuple[str, ...]]:
    """Return the names of the linear layers of each role asked for."""
    model_type = config.get("model_type")
    if model_type not in MODULES:
        raise Failure(
            Reason.MODEL_UNSUPPORTED,
            f"model_type '{model_type}' is not known to spec.lora.targets; known are "
            f"{', '.join(sorted(MODULES))}",
        )
    return {target: MODULES[model_type][target] for target in targets}
