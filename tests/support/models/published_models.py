"""Published models as their config.json and the shapes of their weights tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_trainer.memory.shape import AdapterShape, ModelShape, TensorHeader

Matrices = Mapping[str, tuple[int, int]]  # name below a layer -> outputs, inputs


@dataclass(frozen=True)
class Published:
    """A model, and the matrices of all its layers that LoRA adapts."""

    config: dict[str, Any]
    headers: dict[str, TensorHeader]
    adapted: tuple[tuple[int, int], ...]

    @property
    def shape(self) -> ModelShape:
        """Return what of it decides memory."""
        return ModelShape.of(self.config, self.headers)

    def adapter(self, rank: int) -> AdapterShape:
        """Return the size of an adapter on attention and MLP."""
        return AdapterShape(
            parameters=rank * sum(outputs + inputs for outputs, inputs in self.adapted),
            inputs=sum(inputs + rank for _, inputs in self.adapted),
        )


def dense(
    layers: int,
    hidden: int,
    heads: int,
    kv: int,
    mlp: int,
    vocabulary: int,
    *,
    width: int = 128,
    head_norms: bool = False,
) -> Published:
    """Return a Llama-like model with an output embedding of its own."""
    matrices = {
        "self_attn.q_proj": (heads * width, hidden),
        "self_attn.k_proj": (kv * width, hidden),
        "self_attn.v_proj": (kv * width, hidden),
        "self_attn.o_proj": (hidden, heads * width),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "mlp.down_proj": (hidden, mlp),
    }
    norms = {"input_layernorm": hidden, "post_attention_layernorm": hidden}
    if head_norms:
        norms |= {"self_attn.q_norm": width, "self_attn.k_norm": width}
    headers = _ends(hidden, vocabulary)
    for layer in range(layers):
        headers |= _tensors(f"model.layers.{layer}", matrices, norms)
    config = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": width,
        "intermediate_size": mlp,
        "vocab_size": vocabulary,
    }
    return Published(config, headers, tuple(matrices.values()) * layers)


def deepseek_v3() -> Published:
    """Return DeepSeek-V3: 61 layers, 3 of them dense, 256 experts; and a layer beyond them."""
    hidden, heads, expert, vocabulary, layers = 7168, 128, 2048, 129280, 61
    attention = {
        "self_attn.q_a_proj": (1536, hidden),
        "self_attn.q_b_proj": (heads * 192, 1536),
        "self_attn.kv_a_proj_with_mqa": (576, hidden),
        "self_attn.kv_b_proj": (heads * 256, 512),
        "self_attn.o_proj": (hidden, heads * 128),
    }
    norms = {"input_layernorm": hidden, "post_attention_layernorm": hidden}
    norms |= {"self_attn.q_a_layernorm": 1536, "self_attn.kv_a_layernorm": 512}
    headers = _ends(hidden, vocabulary)
    for layer in range(layers + 1):
        mlp = _gated("mlp", 18432, hidden)
        if layer >= 3:
            mlp = _gated("mlp.shared_experts", expert, hidden) | {"mlp.gate": (256, hidden)}
            for number in range(256):
                mlp |= _gated(f"mlp.experts.{number}", expert, hidden)
        headers |= _tensors(f"model.layers.{layer}", attention | mlp, norms)
    config = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "intermediate_size": 18432,
        "moe_intermediate_size": expert,
        "num_experts_per_tok": 8,
        "n_shared_experts": 1,
        "vocab_size": vocabulary,
    }
    return Published(config, headers, tuple(attention.values()) * layers)


def _ends(hidden: int, vocabulary: int) -> dict[str, TensorHeader]:
    return {
        "model.embed_tokens.weight": TensorHeader("BF16", (vocabulary, hidden)),
        "lm_head.weight": TensorHeader("BF16", (vocabulary, hidden)),
        "model.norm.weight": TensorHeader("BF16", (hidden,)),
    }


def _gated(path: str, width: int, hidden: int) -> dict[str, tuple[int, int]]:
    return {
        f"{path}.gate_proj": (width, hidden),
        f"{path}.up_proj": (width, hidden),
        f"{path}.down_proj": (hidden, width),
    }


def _tensors(layer: str, matrices: Matrices, norms: Mapping[str, int]) -> dict[str, TensorHeader]:
    shapes: dict[str, tuple[int, ...]] = {**matrices, **{name: (n,) for name, n in norms.items()}}
    return {f"{layer}.{n}.weight": TensorHeader("BF16", shape) for n, shape in shapes.items()}


LLAMA_3_8B = dense(32, 4096, 32, 8, 14336, 128256)
QWEN3_8B = dense(36, 4096, 32, 8, 12288, 151936, head_norms=True)
