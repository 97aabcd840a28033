"""The memory formula: published sizes, and what must never make it smaller."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_contract.layout import Offload, ZeroStage
from finetune_contract.recipe import Optimizer, Precision, Quantization
from finetune_contract.resolved import MemoryEstimate
from finetune_trainer.memory.formula import (
    FP32,
    HALF,
    LOGITS_BYTES,
    NF4_BYTES,
    Setting,
    estimate,
    host_bytes,
    merging_fits,
    saving_fits,
    snapshot_bytes,
)
from finetune_trainer.memory.shape import AdapterShape, ModelShape, TensorHeader
from support.models.published_models import LLAMA_3_8B, QWEN3_8B, deepseek_v3

GIB = 2**30
PLAIN = Setting(
    precision=Precision.BF16,
    quantization=Quantization.NONE,
    optimizer=Optimizer.ADAMW,
    sequence_length=2048,
    micro_batch_size=1,
    world=8,
    stage=ZeroStage.DDP,
    offload=(),
    checkpointing=False,
    on_gpu=True,
)
LLAMA = LLAMA_3_8B.shape
ADAPTER = LLAMA_3_8B.adapter(16)


def need(setting: Setting, adapter: AdapterShape = ADAPTER) -> MemoryEstimate:
    return estimate(LLAMA, adapter, setting)


def test_elements_are_those_that_the_publisher_counts() -> None:
    assert LLAMA.elements == 8_030_261_248
    assert QWEN3_8B.shape.elements == 8_190_735_360
    deepseek = deepseek_v3().shape
    assert deepseek.elements == pytest.approx(671e9, rel=1e-3)
    assert (deepseek.layers, deepseek.moe_layers, deepseek.routes) == (61, 58, 8)
    assert deepseek.experts == 8 * 2048
    assert deepseek.shared == 2048
    assert (deepseek.queries, deepseek.values) == (128 * 192, 128 * 192)


def test_the_adapter_is_the_known_one() -> None:
    assert ADAPTER.parameters == 41_943_040


def test_weights_are_stored_as_the_precision_says() -> None:
    assert need(PLAIN).weights == HALF * LLAMA.elements
    assert need(replace(PLAIN, precision=Precision.FP32)).weights == FP32 * LLAMA.elements
    nf4 = need(replace(PLAIN, quantization=Quantization.NF4)).weights
    ends = 2 * 128256 * 4096 + (2 * 32 + 1) * 4096  # embeddings and norms are not quantised
    assert nf4 == pytest.approx(HALF * ends + NF4_BYTES * (LLAMA.elements - ends))


def test_experts_are_not_quantised() -> None:
    deepseek = deepseek_v3().shape
    assert deepseek.quantisable < 0.03 * deepseek.elements


def test_each_stage_shards_what_it_is_named_for() -> None:
    ddp, optimizer, gradients, parameters = (
        need(replace(PLAIN, stage=stage)) for stage in ZeroStage
    )
    trained = FP32 * ADAPTER.parameters
    assert (ddp.adapter, ddp.gradients, ddp.optimizer) == (trained, trained, 2 * trained)
    assert (optimizer.gradients, optimizer.optimizer) == (trained, 3 * trained // 8)
    assert (gradients.adapter, gradients.gradients) == (trained, trained // 8)
    assert parameters.adapter == trained // 8
    assert parameters.weights == HALF * LLAMA.elements // 8
    assert gradients.weights == HALF * LLAMA.elements
    gathered = HALF * LLAMA.largest
    assert parameters.overhead - gradients.overhead >= gathered


def test_sgd_keeps_no_moments() -> None:
    assert need(replace(PLAIN, optimizer=Optimizer.SGD)).optimizer == 0


def test_what_is_offloaded_is_the_hosts() -> None:
    away = replace(PLAIN, stage=ZeroStage.PARAMETERS, offload=tuple(Offload))
    assert (need(away).weights, need(away).optimizer) == (0, 0)
    assert host_bytes(LLAMA, ADAPTER, PLAIN) == 0
    on_host = host_bytes(LLAMA, ADAPTER, away)
    assert on_host == HALF * LLAMA.elements // 8 + 4 * FP32 * ADAPTER.parameters // 8


def test_there_is_room_to_draw_a_completion_beside_merged_weights() -> None:
    wide = replace(LLAMA, keys=4096, values=4096)
    long = replace(PLAIN, checkpointing=True, sequence_length=131072)
    short = replace(long, sequence_length=64)
    cache = HALF * 32 * 2 * 4096 * 131072
    layer = FP32 * 2 * 4096 + HALF * (4 * 4096 + 3 * 14336) + (FP32 + 2 * HALF) * 4096
    for plain, drawn in ((long, 2 * (cache + 8192 * layer)), (short, 2 * 2 * 8192 * layer)):
        training = estimate(wide, ADAPTER, plain)
        generating = estimate(wide, ADAPTER, replace(plain, prompt_tokens=8192))
        assert training.activations < drawn
        assert generating == training.model_copy(update={"activations": drawn})


def test_rollouts_that_need_less_than_a_training_pass_add_nothing() -> None:
    assert need(replace(PLAIN, prompt_tokens=2048)) == need(PLAIN)


def test_rank_0_holds_a_checkpoint_beside_what_trains() -> None:
    plain = replace(PLAIN, processes=4)
    weights = FP32 * ADAPTER.parameters
    assert snapshot_bytes(ADAPTER, plain) == 3 * weights
    assert snapshot_bytes(ADAPTER, replace(plain, optimizer=Optimizer.SGD)) == weights
    assert snapshot_bytes(ADAPTER, replace(plain, keeps_best=True)) == 4 * weights
    away, cpu = replace(plain, offload=(Offload.OPTIMIZER,)), replace(plain, on_gpu=False)
    for setting, held in (
        (plain, 0),
        (away, host_bytes(LLAMA, ADAPTER, away)),
        (cpu, need(cpu).total),
    ):
        assert saving_fits(LLAMA, ADAPTER, setting, held + 3 * weights / 4)
        assert not saving_fits(LLAMA, ADAPTER, setting, held + 3 * weights / 4 - 1)


@pytest.mark.parametrize("offload", [(), tuple(Offload)])
def test_what_is_quantised_is_loaded_whole_before_it_is_sharded(
    offload: tuple[Offload, ...],
) -> None:
    nf4 = replace(PLAIN, quantization=Quantization.NF4)
    sharded = replace(nf4, stage=ZeroStage.PARAMETERS, offload=offload)
    assert need(sharded).weights == need(nf4).weights > 0


@pytest.mark.parametrize(("dtype", "width"), [("F32", 4), ("BF16", 2), ("F64", 8)])
def test_a_merged_model_is_held_as_the_base_is_stored(dtype: str, width: int) -> None:
    headers = {n: TensorHeader(dtype, h.shape) for n, h in LLAMA_3_8B.headers.items()}
    shape = ModelShape.of(LLAMA_3_8B.config, headers)
    assert shape.stored == width * LLAMA.elements
    merging = replace(PLAIN, processes=4, merges=True)  # rank 0 alone does, with the host's memory
    assert merging_fits(shape, ADAPTER, merging, shape.stored / 4)
    assert not merging_fits(shape, ADAPTER, merging, shape.stored / 4 - 1)
    assert merging_fits(shape, ADAPTER, PLAIN, 0)


def test_what_stays_on_the_host_is_there_beside_the_merged_model() -> None:
    away = replace(PLAIN, offload=(Offload.OPTIMIZER,), merges=True)
    on_host = host_bytes(LLAMA, ADAPTER, away)
    assert on_host > 0
    assert merging_fits(LLAMA, ADAPTER, away, LLAMA.stored + on_host)
    assert not merging_fits(LLAMA, ADAPTER, away, LLAMA.stored + on_host - 1)
    cpu = replace(PLAIN, on_gpu=False, merges=True)
    assert not merging_fits(LLAMA, ADAPTER, cpu, LLAMA.stored + need(cpu).weights)
    assert merging_fits(LLAMA, ADAPTER, cpu, LLAMA.stored + need(cpu).total)


def test_logits_are_bounded_by_their_chunk() -> None:
    assert need(replace(PLAIN, sequence_length=100_000)).logits <= 3 * LOGITS_BYTES


def test_checkpointing_keeps_one_tensor_a_layer() -> None:
    long = replace(PLAIN, sequence_length=16384)
    kept = need(long).activations
    again = need(replace(long, checkpointing=True)).activations
    assert again > LLAMA.layers * 16384 * HALF * LLAMA.hidden
    assert again < kept / 5


def test_folded_experts_are_held_twice_until_their_layers_backward_pass() -> None:
    shape = deepseek_v3().shape
    experts = 58 * 256 * 3 * 7168 * 2048
    plain, folded = AdapterShape(10**8, 0), AdapterShape(10**8, 0, folded=experts)
    kept = estimate(shape, folded, PLAIN).activations - estimate(shape, plain, PLAIN).activations
    assert kept >= HALF * experts
    again = replace(PLAIN, checkpointing=True)
    once = estimate(shape, folded, again).activations - estimate(shape, plain, again).activations
    assert HALF * experts / 58 <= once < kept / 5


def test_a_cap_on_scores_needs_them_written_out() -> None:
    config = {**LLAMA_3_8B.config, "attn_logit_softcapping": 50.0}
    capped = ModelShape.of(config, LLAMA_3_8B.headers)
    more = estimate(capped, ADAPTER, PLAIN).activations - need(PLAIN).activations
    assert more >= 32 * 1024 * 2048 * FP32


@pytest.mark.parametrize(
    ("config", "message"),
    [({}, "num_hidden_layers"), ({"n_layer": 2}, "hidden_size")],
)
def test_a_number_that_config_json_lacks_is_named(config: dict[str, int], message: str) -> None:
    with pytest.raises(KeyError, match=message):
        ModelShape.of(config, {})


def test_other_names_of_the_same_numbers_are_read() -> None:
    config = {"n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 10}
    headers = {
        "transformer.h.0.mlp.c_fc.weight": TensorHeader("F32", (8, 32)),
        "transformer.h.1.mlp.c_fc.weight": TensorHeader("F32", (8, 32)),
        "transformer.h.1.mlp.c_fc.weight_scale_inv": TensorHeader("F32", (1, 1)),
    }
    shape = ModelShape.of({"text_config": config}, headers)
    assert (shape.layers, shape.hidden, shape.dense, shape.queries) == (2, 8, 32, 8)
    assert (shape.elements, shape.largest, shape.normed) == (512, 256, 16)


SETTINGS = st.builds(
    Setting,
    precision=st.sampled_from(Precision),
    quantization=st.sampled_from(Quantization),
    optimizer=st.sampled_from(Optimizer),
    sequence_length=st.integers(8, 10_000),
    micro_batch_size=st.integers(1, 32),
    world=st.integers(2, 64),
    stage=st.sampled_from(ZeroStage),
    offload=st.just(()),
    checkpointing=st.booleans(),
    on_gpu=st.booleans(),
)


@settings(max_examples=200, deadline=None)
@given(setting=SETTINGS, rank=st.integers(1, 256))
def test_more_never_needs_less(setting: Setting, rank: int) -> None:
    adapter = LLAMA_3_8B.adapter(rank)
    total = estimate(LLAMA, adapter, setting).total
    grown = (
        (replace(setting, sequence_length=2 * setting.sequence_length), adapter),
        (replace(setting, micro_batch_size=setting.micro_batch_size + 1), adapter),
        (setting, LLAMA_3_8B.adapter(rank + 1)),
        (replace(setting, precision=Precision.FP32), adapter),
        (replace(setting, optimizer=Optimizer.ADAMW), adapter),
    )
    for larger, its_adapter in grown:
        assert estimate(LLAMA, its_adapter, larger).total >= total
    if setting.stage is not ZeroStage.PARAMETERS:  # which shards what is not quantised only
        plain = replace(setting, quantization=Quantization.NONE)
        assert estimate(LLAMA, adapter, plain).total >= total
    spread = replace(setting, world=2 * setting.world)
    assert estimate(LLAMA, adapter, spread).total <= total
    again = replace(setting, checkpointing=True)
    assert estimate(LLAMA, adapter, again).total <= total * 1.02  # it pays with one layer
