"""Auto takes what costs least and fits; a refusal names what would fit, by the same formula."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from finetune_contract.layout import Checkpointing, Offload, ZeroStage
from finetune_contract.recipe import (
    EvalRecipe,
    Export,
    Optimizer,
    Precision,
    Publish,
    Quantization,
)
from finetune_trainer.fit.fitting import USABLE, Fitter, Room, Wish
from support.models.published_models import LLAMA_3_8B, Published, deepseek_v3
from support.models.weightless import grpo_wish
from support.trainer.runs import run_config

GIB = 2**30
WISH = Wish(
    precision=Precision.BF16,
    quantization=Quantization.NONE,
    optimizer=Optimizer.ADAMW,
    sequence_length=2048,
    global_batch_size=64,
    micro_batch_size=None,
    workers=1,
    processes=1,
    stage=None,
    offload=(),
    checkpointing=Checkpointing.AUTO,
    on_gpu=True,
)


def fitter(model: Published, device: float, host: float = 256) -> Fitter:
    return Fitter(model.shape, model.adapter(16), Room(round(device * GIB), round(host * GIB)))


def test_with_room_nothing_is_given_up() -> None:
    setting = fitter(LLAMA_3_8B, 2000).settle(WISH)
    assert setting is not None
    assert (setting.stage, setting.checkpointing) == (ZeroStage.DDP, False)
    assert setting.micro_batch_size == 16  # 32,768 tokens of 2,048 each


def test_llama_8b_in_bf16_fits_on_one_gpu_of_80_gib() -> None:
    setting = fitter(LLAMA_3_8B, 80).settle(WISH)
    assert setting is not None
    assert (setting.stage, setting.checkpointing) == (ZeroStage.DDP, False)


def test_the_micro_batch_shrinks_before_activations_are_computed_again() -> None:
    sizes = [
        (found.checkpointing, found.micro_batch_size)
        for room in (200, 100, 60, 30)
        if (found := fitter(LLAMA_3_8B, room).settle(WISH)) is not None
    ]
    assert len(sizes) == 4
    assert sizes[0] > sizes[1] or sizes[0][1] > sizes[1][1]
    assert [again for again, _ in sizes] == [False, False, False, True]
    assert sizes[3][1] > sizes[2][1]  # room again


def test_the_least_stage_that_fits_is_taken() -> None:
    eight = replace(WISH, processes=8)
    assert fitter(LLAMA_3_8B, 24).settle(eight).stage is ZeroStage.DDP  # type: ignore[union-attr]
    small = fitter(LLAMA_3_8B, 14).settle(eight)
    assert small is not None
    assert small.stage is ZeroStage.PARAMETERS


def test_a_micro_batch_divides_the_rows_of_a_process() -> None:
    odd = replace(WISH, global_batch_size=18, processes=2)
    setting = fitter(LLAMA_3_8B, 2000).settle(odd)
    assert setting is not None
    assert setting.micro_batch_size == 9


def test_a_micro_batch_splits_no_group_needlessly() -> None:
    grouped = replace(WISH, global_batch_size=48, group_size=8, sequence_length=512)
    assert grouped.micro_batch_sizes() == (16, 8, 4, 2, 1)  # neither 12 nor 6 nor 3
    assert replace(grouped, group_size=6).micro_batch_sizes() == (12, 6, 3, 2, 1)
    assert replace(grouped, micro_batch_size=3).micro_batch_sizes() == (3,)


def test_prompts_are_read_up_to_a_limit_at_once() -> None:
    few = replace(WISH, generates=True, group_size=8, sequence_length=1024, completion_tokens=256)
    assert few.prompt_tokens == 64 // 8 * 768
    assert replace(few, global_batch_size=640).prompt_tokens == 8192
    assert replace(few, sequence_length=65536).prompt_tokens == 65536 - 256
    assert replace(few, workers=8).prompt_tokens == 2 * 768, "seven groups may be on eight"
    assert replace(few, workers=64).prompt_tokens == 768
    assert replace(few, workers=32).prompt_tokens == 2 * 768
    assert replace(few, generates=False).prompt_tokens == 0
    setting = fitter(LLAMA_3_8B, 2000).settle(few)
    assert setting is not None
    assert setting.prompt_tokens == few.prompt_tokens


def test_a_job_that_can_not_draw_a_completion_is_refused() -> None:
    asked = replace(
        WISH,
        sequence_length=2048,
        global_batch_size=640,
        checkpointing=Checkpointing.ALWAYS,
        group_size=8,
        completion_tokens=600,
    )
    plenty = fitter(LLAMA_3_8B, 2000)
    enough = plenty.estimate(plenty.smallest(asked)).total / USABLE / GIB + 0.01
    room = fitter(LLAMA_3_8B, enough)
    assert room.settle(asked) is not None
    drawing = replace(asked, generates=True)
    assert room.settle(drawing) is None
    longer = fitter(LLAMA_3_8B, enough + 0.1)
    lengths = [r for r in longer.remedies(drawing) if "sequenceLength" in r]
    assert all(int(remedy.split()[-1]) > 600 for remedy in lengths)


def test_reward_models_take_room_that_is_there_already() -> None:
    held = replace(WISH, reward_models=10 * GIB)
    enough = fitter(LLAMA_3_8B, 2000)
    needed = enough.estimate(enough.smallest(WISH)).total / USABLE / GIB + 0.01
    assert fitter(LLAMA_3_8B, needed).settle(WISH) is not None
    assert fitter(LLAMA_3_8B, needed).settle(held) is None
    assert fitter(LLAMA_3_8B, needed + 10 / USABLE).settle(held) is not None


def test_a_job_tells_of_its_groups(tmp_path: Path) -> None:
    sft = Wish.of(run_config(tmp_path), on_gpu=True)
    assert (sft.group_size, sft.completion_tokens, sft.generates) == (1, 0, False)
    grpo = {
        "groupSize": 4,
        "sampling": {"maxTokens": 20},
        "rewards": [{"name": "right", "regex": {"pattern": "x"}}],
    }
    config = run_config(tmp_path, grpo=grpo)
    wish = grpo_wish(config)(Wish.of(config, on_gpu=True))
    assert (wish.group_size, wish.completion_tokens, wish.generates) == (4, 20, True)
    server = {"engine": "OpenAI", "uri": "http://server", "adapterDirectory": "/adapters"}
    served = run_config(tmp_path, grpo=grpo, rollout=server)
    assert not grpo_wish(served)(Wish.of(served, on_gpu=True)).generates


@pytest.mark.parametrize(("on_gpu", "length", "most"), [(True, 4096, 8), (False, 1024, 4)])
def test_a_micro_batch_holds_no_more_tokens_than_gain_speed(
    on_gpu: bool, length: int, most: int
) -> None:
    wish = replace(WISH, on_gpu=on_gpu, sequence_length=length)
    assert wish.micro_batch_sizes()[0] == most
    assert replace(wish, sequence_length=10**6).micro_batch_sizes() == (1,)


def test_what_the_user_set_stays() -> None:
    pinned = replace(
        WISH,
        micro_batch_size=4,
        processes=8,
        stage=ZeroStage.GRADIENTS,
        checkpointing=Checkpointing.ALWAYS,
    )
    setting = fitter(LLAMA_3_8B, 2000).settle(pinned)
    assert setting is not None
    assert (setting.micro_batch_size, setting.stage) == (4, ZeroStage.GRADIENTS)
    assert setting.checkpointing
    never = replace(WISH, checkpointing=Checkpointing.NEVER, micro_batch_size=16)
    assert fitter(LLAMA_3_8B, 60).settle(never) is None


@pytest.mark.parametrize(
    ("offload", "stages"),
    [
        ((), [ZeroStage.DDP]),
        ((Offload.OPTIMIZER,), [ZeroStage.OPTIMIZER, ZeroStage.GRADIENTS, ZeroStage.PARAMETERS]),
        ((Offload.PARAMETERS,), [ZeroStage.PARAMETERS]),
    ],
)
def test_one_process_shards_only_to_offload(
    offload: tuple[Offload, ...], stages: list[ZeroStage]
) -> None:
    assert list(replace(WISH, offload=offload).stages()) == stages
    if not offload:
        assert list(replace(WISH, stage=ZeroStage.PARAMETERS).stages()) == stages


def test_what_is_offloaded_needs_room_on_the_host() -> None:
    away = replace(WISH, offload=tuple(Offload))
    assert fitter(LLAMA_3_8B, 12, host=32).settle(away) is not None
    assert fitter(LLAMA_3_8B, 12, host=8).settle(away) is None


def test_a_merged_model_needs_room_on_the_host() -> None:
    merging = replace(WISH, merges=True, processes=2)
    assert fitter(LLAMA_3_8B, 80, host=9).settle(merging) is not None
    tight = fitter(LLAMA_3_8B, 80, host=7)
    assert tight.settle(merging) is None
    [remedy] = tight.remedies(merging)
    assert remedy.startswith("spec.output.export [Adapter] ")
    assert tight.settle(replace(merging, merges=False)) is not None


def test_a_checkpoint_needs_room_on_the_host() -> None:
    rank_0 = 12 * LLAMA_3_8B.adapter(16).parameters / GIB / USABLE
    assert fitter(LLAMA_3_8B, 80, host=1.01 * rank_0).settle(WISH) is not None
    assert fitter(LLAMA_3_8B, 80, host=0.99 * rank_0).settle(WISH) is None
    best = replace(WISH, keeps_best=True)
    assert fitter(LLAMA_3_8B, 80, host=1.01 * rank_0).settle(best) is None


def test_a_job_tells_whether_it_keeps_the_best(tmp_path: Path) -> None:
    config = run_config(tmp_path)
    assert not Wish.of(config, on_gpu=True).keeps_best
    best = config.recipe.model_copy(update={"eval": EvalRecipe(publish=Publish.BEST)})
    assert Wish.of(config.model_copy(update={"recipe": best}), on_gpu=True).keeps_best


def test_a_job_tells_whether_it_merges(tmp_path: Path) -> None:
    config = run_config(tmp_path)
    assert not Wish.of(config, on_gpu=True).merges
    export = config.recipe.model_copy(update={"export": (Export.ADAPTER, Export.MERGED)})
    assert Wish.of(config.model_copy(update={"recipe": export}), on_gpu=True).merges


def test_some_of_a_device_is_left_to_its_allocator() -> None:
    one = replace(WISH, micro_batch_size=1, checkpointing=Checkpointing.ALWAYS)
    plenty = fitter(LLAMA_3_8B, 80)
    needed = plenty.estimate(plenty.smallest(one)).total / GIB
    assert fitter(LLAMA_3_8B, needed).settle(one) is None
    assert fitter(LLAMA_3_8B, needed / USABLE + 0.01).settle(one) is not None


# What is asked for, the room, and the remedies named.
REFUSED = [
    (replace(WISH, checkpointing=Checkpointing.NEVER, sequence_length=8192), 30, [
        "spec.memory.gradientCheckpointing Always",
        "spec.training.sequenceLength 1024",
    ]),
    (replace(WISH, micro_batch_size=16), 30, ["spec.training.microBatchSize 1"]),
    (replace(WISH, processes=8, stage=ZeroStage.GRADIENTS), 14, [
        "spec.memory.zeroStage 3",
        "spec.memory.offload [Optimizer] and zeroStage Auto",
    ]),
    (WISH, 12, ["spec.workers.replicas 4", "spec.lora.quantization NF4"]),
]  # fmt: skip


@pytest.mark.parametrize(("wish", "device", "expected"), REFUSED)
def test_remedies_are_named(wish: Wish, device: int, expected: list[str]) -> None:
    tight = fitter(LLAMA_3_8B, device)
    assert tight.settle(wish) is None
    assert set(expected) <= set(tight.remedies(wish))


def test_deepseek_v3_on_eight_gpus_is_refused_with_remedies_that_fit() -> None:
    tight = fitter(deepseek_v3(), 80, host=2000 / 8)
    wish = replace(WISH, processes=8)
    assert tight.settle(wish) is None
    remedies = tight.remedies(wish)
    assert "spec.workers.replicas 4" in remedies
    assert "spec.memory.offload [Optimizer, Parameters]" in remedies
    for changed in (
        replace(wish, workers=4),
        replace(wish, offload=(Offload.OPTIMIZER, Offload.PARAMETERS)),
    ):
        assert tight.settle(changed) is not None
    assert tight.settle(replace(wish, workers=2)) is None


def test_what_one_change_can_not_do_two_together_may() -> None:
    both = replace(WISH, micro_batch_size=8, checkpointing=Checkpointing.NEVER)
    remedies = fitter(LLAMA_3_8B, 20).remedies(both)
    assert (
        "spec.memory.gradientCheckpointing Always with spec.training.microBatchSize 1" in remedies
    )
    assert all(" with " in remedy for remedy in remedies)


def test_where_nothing_helps_nothing_is_named() -> None:
    assert fitter(deepseek_v3(), 2, host=4).remedies(WISH) == []


def test_a_cpu_is_offered_neither_nf4_nor_offload() -> None:
    remedies = " ".join(fitter(LLAMA_3_8B, 12).remedies(replace(WISH, on_gpu=False)))
    assert "NF4" not in remedies
    assert "offload" not in remedies


def test_more_workers_divide_the_batch() -> None:
    wish = replace(WISH, global_batch_size=3)
    assert not any("replicas" in remedy for remedy in fitter(LLAMA_3_8B, 12).remedies(wish))
