"""Whether vLLM can serve an adapter next to its base model.

Told from vLLM's sources (vllm/lora and vllm/config/lora.py, 0.25): what it refuses, and what it
loads without an error and then does not apply. Where it is not known, the answer is no: the merged
model can be served in any case.
"""

from __future__ import annotations

from collections.abc import Iterable

from finetune_contract.artifact import Serving
from finetune_contract.recipe import LoraRecipe, LoraTarget

MAX_RANK = 512  # the largest --max-lora-rank
ARCHITECTURES = frozenset(
    {
        "deepseek_v2",
        "deepseek_v3",
        "gemma",
        "gemma2",
        "gemma3_text",
        "llama",
        "mistral",
        "mixtral",
        "phi",
        "phi3",
        "qwen2",
        "qwen3",
        "qwen3_moe",
    }
)

_BY_ROLE = {
    LoraTarget.EXPERTS: "it takes the fused gate_up_proj of Experts for interleaved",
    LoraTarget.ROUTER: "it has no LoRA on a Router that computes in float32",
    LoraTarget.EMBEDDINGS: "not all of its models have LoRA on Embeddings",
    LoraTarget.HEAD: "not all of its models have LoRA on the Head",
}


def vllm_serving(model_type: str, recipe: LoraRecipe, weights: Iterable[str]) -> Serving:
    """Return the answer for an adapter on the weights of these full names."""
    reasons = vllm_obstacles(model_type, recipe, weights)
    if not reasons:
        return Serving(vllm=True)
    return Serving(
        vllm=False, why_not=f"{'; '.join(reasons)}; output.export Merged can be served instead"
    )


def vllm_obstacles(model_type: str, recipe: LoraRecipe, weights: Iterable[str]) -> list[str]:
    """Return what keeps vLLM from serving an adapter on the weights of these full names."""
    reasons = [_BY_ROLE[role] for role in recipe.targets if role in _BY_ROLE]
    if model_type not in ARCHITECTURES:
        reasons.insert(0, f"its LoRA on model_type {model_type} is not known")
    if recipe.dora:
        reasons.append("it has no DoRA")
    if recipe.rank > MAX_RANK:
        reasons.append(f"its largest rank is {MAX_RANK}")
    if any(name.endswith(".kv_b_proj") for name in weights):
        reasons.append("it does not apply LoRA on the kv_b_proj of multi-head latent attention")
    return reasons
