"""Which weight matrices of a decoder layer play which role, by `model_type` of config.json.

Names are paths below a decoder layer, as transformers 5 holds them: experts are stacks in one 3-D
parameter each, and routers are 2-D parameters. A layer need not have all of a role's matrices:
MLA holds its queries in one matrix or in two, and mixtures of experts begin with dense layers.
"""

from __future__ import annotations

from finetune_contract.recipe import LoraTarget

Roles = dict[LoraTarget, tuple[str, ...]]


def _below(parent: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{parent}.{name}" for name in names)


_GATED = ("gate_proj", "up_proj", "down_proj")
_FUSED = ("gate_up_proj", "down_proj")

_LLAMA: Roles = {
    LoraTarget.ATTENTION: _below("self_attn", "q_proj", "k_proj", "v_proj", "o_proj"),
    LoraTarget.MLP: _below("mlp", *_GATED),
}
_EXPERTS: Roles = {
    LoraTarget.EXPERTS: _below("mlp.experts", *_FUSED),
    LoraTarget.ROUTER: ("mlp.gate.weight",),
}
_DEEPSEEK: Roles = {
    **_LLAMA,
    LoraTarget.ATTENTION: _below(
        "self_attn",
        "q_proj",
        "q_a_proj",
        "q_b_proj",
        "kv_a_proj_with_mqa",
        "kv_b_proj",
        "o_proj",
    ),
    **_EXPERTS,
    LoraTarget.SHARED_EXPERTS: _below("mlp.shared_experts", *_GATED),
}

ARCHITECTURES: dict[str, Roles] = {
    "llama": _LLAMA,
    "smollm3": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3_text": _LLAMA,
    "phi": {
        LoraTarget.ATTENTION: _below("self_attn", "q_proj", "k_proj", "v_proj", "dense"),
        LoraTarget.MLP: _below("mlp", "fc1", "fc2"),
    },
    "phi3": {
        LoraTarget.ATTENTION: _below("self_attn", "qkv_proj", "o_proj"),
        LoraTarget.MLP: _below("mlp", "gate_up_proj", "down_proj"),
    },
    "mixtral": {LoraTarget.ATTENTION: _LLAMA[LoraTarget.ATTENTION], **_EXPERTS},
    "qwen3_moe": {**_LLAMA, **_EXPERTS},
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
}
