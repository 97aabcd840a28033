"""NF4 (arXiv 2305.14314): the frozen linear layers in 4 bits, through bitsandbytes.

Only `nn.Linear` becomes smaller: fused experts, routers and embeddings stay as they are without it.
"""

from __future__ import annotations

from typing import Any

import torch

from finetune_contract.reasons import Reason
from finetune_contract.recipe import Quantization, Recipe
from finetune_trainer.model.base import DTYPES
from finetune_trainer.process.errors import Failure

BLOCK = 64  # weights that share one scale


def check_quantization(recipe: Recipe, device: torch.device) -> None:
    """Raise Failure(DeviceUnsupported) where a job asks for NF4 and bitsandbytes can not do it."""
    if recipe.lora.quantization is Quantization.NONE:
        return
    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        block = torch.ones(BLOCK, device=device, dtype=DTYPES[recipe.training.precision])
        dequantize_4bit(*quantize_4bit(block, blocksize=BLOCK, quant_type="nf4"))
    # What bitsandbytes raises without its library, and torch without a kernel for the device.
    except (ImportError, NotImplementedError, RuntimeError) as error:
        raise Failure(
            Reason.DEVICE_UNSUPPORTED,
            f"spec.lora.quantization NF4 does not work on this {device.type}: {error}",
        ) from error


def loading_options(recipe: Recipe) -> dict[str, Any]:
    """Return what transformers' `from_pretrained` must be told to quantise while it loads."""
    if recipe.lora.quantization is Quantization.NONE:
        return {}
    from transformers import BitsAndBytesConfig

    dtype = DTYPES[recipe.training.precision]
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype,  # ZeRO-3 gathers each number format by itself
    )
    return {"quantization_config": nf4}


def keep_layout(model: Any) -> None:
    """Keep bitsandbytes from packing weights anew, in place, whenever a CPU evaluates.

    What it packs it computes in BF16, it fails on rows that are no multiple of 32, and it replaces
    tensors that ZeRO has sharded.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
