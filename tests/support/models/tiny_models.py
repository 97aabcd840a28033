"""Tiny random models of many architectures, written as model directories by name.

Routers are made so that top-k can not flip: a token's class (its id modulo the number of expert
sets) stands in the first dimensions of its embedding, nothing in the base writes to those
dimensions, and each router reads from them which experts the class goes to. The chosen experts'
logits lead by 0.8 at the least (measured); other entries are small and only weigh the chosen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.models.tiny_llama import CHATML, byte_tokenizer

MARK = 4.0  # of a token's class in its embedding
LEAD = 3.0  # of a chosen expert's router entry

_SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "initializer_range": 0.3,  # sharp enough that a wrong mask or position shows in the loss
}
_MOE: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
_DEEPSEEK: dict[str, Any] = {
    **_MOE,
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.5,
    "q_lora_rank": 12,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
}
_GEMMA: dict[str, Any] = {"head_dim": 8, "tie_word_embeddings": True}

# model_type of config.json, and what the architecture needs besides _SHAPE.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 8}),
    "mistral": ("mistral", {}),
    "smollm3": ("smollm3", {}),
    "qwen3-moe": (
        "qwen3_moe",
        {**_MOE, "head_dim": 8, "num_experts": 8, "norm_topk_prob": True, "mlp_only_layers": []},
    ),
    "mixtral": (
        "mixtral",
        {"num_experts_per_tok": 2, "num_local_experts": 8, "intermediate_size": 16},
    ),
    "deepseek-v2": ("deepseek_v2", {**_DEEPSEEK, "topk_method": "group_limited_greedy"}),
    "deepseek-v3": ("deepseek_v3", {**_DEEPSEEK, "num_nextn_predict_layers": 0}),
    "gemma": ("gemma", _GEMMA),
    "gemma2": ("gemma2", {**_GEMMA, "query_pre_attn_scalar": 8}),
    "gemma3": ("gemma3_text", {**_GEMMA, "query_pre_attn_scalar": 8}),
    "phi": ("phi", {"num_key_value_heads": 4}),
    "phi3": ("phi3", {}),
    # Not in the trainer's table: mapped by inspection.
    "gpt-neox": ("gpt_neox", {}),
    "qwen2-moe": (
        "qwen2_moe",
        {
            **_MOE,
            "num_experts": 8,
            "norm_topk_prob": True,
            "shared_expert_intermediate_size": 16,
            "mlp_only_layers": [],
        },
    ),
    "olmo2": ("olmo2", {}),
}


def write_tiny(
    name: str,
    directory: Path,
    *,
    chat_template: str | None = CHATML,
    seed: int = 0,
    max_shard_size: str = "1GB",
    **config: Any,
) -> Path:
    """Write the random model of a name in MODELS with a byte tokenizer; return the directory.

    `config` overrides fields of config.json.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    model_type, own = MODELS[name]
    tokenizer = byte_tokenizer(chat_template)
    end = tokenizer.eos_token_id
    tokens = {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": end}
    shape = {**_SHAPE, **tokens, "pad_token_id": end, **own, **config}
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(model_type, **shape), dtype=torch.float32
    )
    _widen_margins(model)
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(directory)
    return directory


def _widen_margins(model: Any) -> None:
    """Make every router choose by the token's class, which stands in its embedding."""
    import torch

    blocks = [
        m.mlp
        for m in model.modules()
        if isinstance(getattr(getattr(m, "mlp", None), "experts", None), torch.nn.Module)
    ]
    if not blocks:
        return
    sets = blocks[0].experts.down_proj.shape[0] // 2
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        classes = torch.arange(embedding.shape[0]) % sets
        embedding[:, :sets] = MARK * torch.nn.functional.one_hot(classes, sets)
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "experts.down_proj")):
                parameter[..., :sets, :] = 0.0  # rows of the output, by output dimension
        for block in blocks:
            router = block.gate.weight
            router.normal_(0.0, 0.05)
            for index in range(sets):
                router[:, index] = 0.0
                router[2 * index : 2 * index + 2, index] = LEAD
