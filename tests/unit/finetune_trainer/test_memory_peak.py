"""The memory formula against the bytes that tensors really hold at their peak."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune_contract.layout import ZeroStage
from finetune_contract.memory import Setting, estimate
from finetune_contract.recipe import LoraRecipe, LoraTarget, Optimizer, Precision, Quantization
from finetune_contract.shape import ModelShape, TensorHeader
from finetune_trainer import scoring
from finetune_trainer.batch import MicroBatch
from finetune_trainer.data.encode import EncodedRow
from finetune_trainer.lora import adapt
from finetune_trainer.model import load_model
from finetune_trainer.resolve import adapter_shape
from finetune_trainer.roles import map_roles
from finetune_trainer.scoring import Scorer, score
from support.tensor_sizes import PeakBytes
from support.tiny_models import write_tiny

BOUNDS = (0.9, 1.65)  # of the formula over the measured peak
LENGTH, ROWS, VOCABULARY = 256, 2, 512
DENSE = {
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
MOE = {**DENSE, "moe_intermediate_size": 64, "num_hidden_layers": 4}
MLA = {
    **MOE,
    "num_key_value_heads": 8,
    "q_lora_rank": 48,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
}
CASES: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "llama": ("llama", ("Attention", "MLP"), DENSE),
    "llama, attention only": ("llama", ("Attention",), DENSE),
    "qwen3": ("qwen3", ("Attention", "MLP"), {**DENSE, "head_dim": 16}),
    "gemma2": ("gemma2", ("Attention", "MLP"), {**DENSE, "head_dim": 16}),
    "phi3": ("phi3", ("Attention", "MLP"), DENSE),
    "qwen3-moe": ("qwen3-moe", ("Attention", "Experts"), {**MOE, "head_dim": 16}),
    "deepseek-v3": ("deepseek-v3", ("Attention", "MLP", "Experts", "SharedExperts"), MLA),
}
CASES |= {
    "olmo2, by inspection": ("olmo2", ("Attention", "MLP"), DENSE),
    "olmo2, run whole": ("olmo2", ("Attention", "MLP"), {**DENSE, "vocab_size": 16384}),
}
COVERING = ("llama", "olmo2, run whole")


def peak_of(model: Any, *, checkpointing: bool) -> int:
    """Return the bytes that forward and backward passes of a full micro-batch add at their peak."""
    draw = np.random.default_rng(0)
    rows = [
        EncodedRow(draw.integers(3, VOCABULARY, LENGTH).astype(np.int32), np.arange(LENGTH) > 0)
        for _ in range(ROWS)
    ]
    scorer = Scorer(model, checkpointing=checkpointing).train()
    batch = MicroBatch.of(rows, torch.device("cpu"), packed=scorer.packs)
    with PeakBytes() as bytes_held:
        score(scorer, batch).sum().backward()
    return bytes_held.peak


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    "case",
    [pytest.param(name, marks=[] if name in COVERING else [pytest.mark.slow]) for name in CASES],
)
def test_the_formula_is_near_the_measured_peak(
    case: str,
    checkpointing: bool,
    precision: Precision,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, targets, config = CASES[case]
    write_tiny(name, tmp_path, **{"vocab_size": VOCABULARY, **config})
    whole = case.endswith("run whole")
    if whole:
        monkeypatch.setattr(scoring, "splits", lambda _: False)
    base = load_model(tmp_path, precision)
    roles = map_roles(base)
    headers = {n: TensorHeader("F32", tuple(p.shape)) for n, p in base.named_parameters()}
    shape = replace(ModelShape.of(base.config.to_dict(), headers), whole_logits=whole)
    recipe = LoraRecipe(rank=8, targets=tuple(LoraTarget(target) for target in targets))
    adapted = adapt(base, recipe, roles, seed=0).model
    setting = Setting(
        precision=precision,
        quantization=Quantization.NONE,
        optimizer=Optimizer.ADAMW,
        sequence_length=LENGTH,
        micro_batch_size=ROWS,
        world=1,
        stage=ZeroStage.DDP,
        offload=(),
        checkpointing=checkpointing,
        on_gpu=False,
    )
    told = estimate(shape, adapter_shape(roles, recipe), setting)
    formula = told.activations + told.logits + told.gradients
    ratio = formula / peak_of(adapted, checkpointing=checkpointing)
    assert BOUNDS[0] <= ratio <= BOUNDS[1]
