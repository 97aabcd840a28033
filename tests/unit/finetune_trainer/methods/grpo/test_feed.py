"""The feed between the loop and the rollouts: buffers reused, counted, saved and gone on with."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_contract.reasons import Reason
from finetune_rewards.scores.samples import Item
from finetune_trainer.methods.grpo.metrics import step_metrics
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.errors import Failure
from finetune_trainer.rollout.base import Completion, Request
from finetune_trainer.step.engine import StepOutcome
from finetune_trainer.step.feed import EMPTY
from support.grpo.configs import grpo_config
from support.grpo.feeds import ONE, STATS, Fed, fed_config, is_a
from support.grpo.stand_ins import completion


def test_a_buffer_serves_as_many_steps_as_iterations_say(tmp_path: Path, alone: Ranks) -> None:
    fed = Fed(fed_config(tmp_path, iterations=3), alone, is_a)
    told = [fed.step() for _ in range(4)]
    assert {key[0] for key in fed.drawer.asked} == {0, 1}
    assert len(fed.drawer.asked) == 8
    assert [("rollout/seconds" in one, "reward/mean" in one) for one in told] == [
        (True, True),
        (False, True),
        (False, True),
        (True, True),
    ]
    assert told[0]["policy/clipped_low"] == 0.25
    assert told[0]["policy/kl"] == 0.5


def test_a_buffer_whose_prompts_are_all_left_out_is_not_drawn(tmp_path: Path, alone: Ranks) -> None:
    config = fed_config(tmp_path, iterations=2)
    out = {int(row) for row in Fed(config, alone, is_a).order.rows(1)}
    fed = Fed(config, alone, is_a, left_out=out)
    fed.step(), fed.step()
    assert len(fed.drawer.asked) == 4
    for _ in range(2):
        assert fed.batch() is EMPTY
        fed.state = fed.state.model_copy(update={"step": fed.state.step + 1})
    assert fed.batch() is not EMPTY
    assert {key[0] for key in fed.drawer.asked} == {0, 2}


def test_drawing_and_scoring_are_timed_apart(tmp_path: Path, alone: Ranks) -> None:
    def after(seconds: float, made: Any) -> Any:
        time.sleep(seconds)
        return made

    fed = Fed(
        fed_config(tmp_path),
        alone,
        lambda text: after(0.02, is_a(text)),
        lambda _, sample: after(0.01, completion("Axx"[sample % 3])),
    )
    for _ in range(2):  # each buffer its own
        began = time.monotonic()
        told = fed.step()
        assert told["rollout/seconds"] >= 16 * 0.01
        assert told["reward/seconds"] >= 16 * 0.02
        assert told["rollout/seconds"] + told["reward/seconds"] <= time.monotonic() - began


def test_a_step_is_timed_from_its_batch_to_its_end(tmp_path: Path, alone: Ranks) -> None:
    fed = Fed(fed_config(tmp_path), alone, is_a)
    assert fed.feed.steps == 16  # of one epoch
    for seconds in (0.2, 0.1):
        began = time.monotonic()
        fed.batch()
        time.sleep(seconds)
        told = fed.feed.metrics(StepOutcome(0.0, 0.0, STATS))
        assert seconds <= told["policy/seconds"] <= time.monotonic() - began


def test_the_reward_outlives_an_attempt_as_it_is(tmp_path: Path, alone: Ranks) -> None:
    first, second = (Fed(fed_config(tmp_path), alone, lambda _: Item(score=0.1)) for _ in range(2))
    first.step()
    second.feed.resume(first.state, first.feed.save())
    assert second.feed.reward == first.feed.reward == 0.1


def test_a_run_that_begins_has_nothing_to_go_on_with(tmp_path: Path, alone: Ranks) -> None:
    fed = Fed(fed_config(tmp_path), alone, is_a)
    fed.feed.resume(fed.state, {})
    assert fed.feed.reward is None
    fed.step()
    assert len(fed.drawer.asked) == 4


def test_a_step_without_tokens_has_no_means() -> None:
    assert step_metrics({**STATS, "tokens": 0.0}) == {}
    assert step_metrics({"tokens": 8.0, "kl": 4.0}) == {"policy/kl": 0.5}


def test_log_probs_are_kept_only_for_several_steps(tmp_path: Path, alone: Ranks) -> None:
    once, thrice = (Fed(fed_config(tmp_path, iterations=n), alone, is_a) for n in (1, 3))
    for batch in once.batch().micro_batches:
        assert batch.policy is None or batch.policy.behaviour is None
    assert once.engine.asked == 0
    for batch in thrice.batch().micro_batches:
        if batch.policy is not None:
            assert batch.policy.behaviour is not None
            assert batch.policy.behaviour.tolist() == (-batch.targets.float()).tolist()
    thrice.step()
    assert thrice.engine.asked == 1


def test_what_is_left_out_counts_all_the_same(tmp_path: Path, alone: Ranks) -> None:
    """A group without spread has no gradient, but the mean is over its tokens too."""
    fed = Fed(
        fed_config(tmp_path),
        alone,
        is_a,
        lambda request, sample: completion("A" if request.key[3] else "Ax"[sample % 2]),
    )
    batch = fed.batch()
    assert (batch.tokens, batch.learned, batch.normaliser) == (32, 16, 16)
    learned = [len(one.targets) for one in batch.micro_batches if one.policy is not None]
    assert sum(learned) == 4
    assert fed.feed.stepped(fed.state).idle_steps == 0
    assert len(batch.micro_batches) == 4  # as many as the engine expects


def test_masked_and_unscored_completions_are_out_of_the_mean(tmp_path: Path, alone: Ranks) -> None:
    fed = Fed(
        fed_config(tmp_path, maskTruncated=True),
        alone,
        lambda text: Item() if text == "B" else is_a(text),
        lambda _, sample: completion("AxBx"[sample], truncated=sample == 3),
    )
    batch = fed.batch()
    assert (batch.learned, batch.normaliser) == (8, 8)


def test_a_stop_leaves_the_step_unmade(tmp_path: Path, alone: Ranks) -> None:
    fed = Fed(fed_config(tmp_path), alone, is_a)
    assert fed.feed.batch(fed.state, lambda: True) is None
    assert fed.feed.save().keys() == {"run.errors"}


def test_nothing_to_learn_ends_the_run_after_so_many_steps(tmp_path: Path, alone: Ranks) -> None:
    fed = Fed(fed_config(tmp_path, nothingToLearnSteps=3), alone, lambda _: Item(score=0.0))
    fed.step()
    fed.step()
    assert fed.state.idle_steps == 2
    with pytest.raises(Failure) as caught:
        fed.step()
    assert (caught.value.reason, caught.value.step) == (Reason.NOTHING_TO_LEARN, 3)
    assert caught.value.rank == 0  # all agree: nobody needs to be told
    assert caught.value.message.startswith("3 steps in a row had nothing to learn from; in the ")
    assert "reward a gave 0 to every completion" in caught.value.message


def test_one_step_with_something_starts_the_count_anew(tmp_path: Path, alone: Ranks) -> None:
    fed = Fed(
        fed_config(tmp_path, nothingToLearnSteps=3),
        alone,
        is_a,
        lambda request, sample: completion("Ax"[sample % 2] if request.key[0] == 2 else "x"),
    )
    counts = []
    for _ in range(4):
        fed.step()
        counts.append(fed.state.idle_steps)
    assert counts == [1, 2, 0, 1]


def test_steps_whose_completions_are_all_cut_count_though_scores_differ(
    tmp_path: Path, alone: Ranks
) -> None:
    def draws(request: Request, sample: int) -> Completion:
        return completion("Ax"[sample % 2], truncated=request.key[0] < 2 or sample == 0)

    fed = Fed(fed_config(tmp_path, nothingToLearnSteps=2), alone, is_a, draws)
    fed.step()
    assert fed.state.idle_steps == 1
    with pytest.raises(Failure, match=r"in the last, every completion was cut at rollout\.maxTok"):
        fed.step()
    fed.state = fed.state.model_copy(update={"step": 2})
    fed.step()
    assert fed.state.idle_steps == 0


def test_errors_of_replaced_groups_are_told(tmp_path: Path, alone: Ranks) -> None:
    fed = Fed(
        fed_config(tmp_path, maxResamples=8),
        alone,
        lambda text: Item(error="broken") if text == "!" else is_a(text),
        lambda request, sample: completion("!" if request.key[1] % 2 else "Ax"[sample % 2]),
    )
    fed.step()
    [told] = fed.reporter.latest.rewards
    assert told.errors == 4 * sum(key[1] % 2 for key in fed.drawer.asked) > 0


def test_the_count_outlives_an_attempt_in_mid_buffer(tmp_path: Path, alone: Ranks) -> None:
    settings = fed_config(tmp_path, iterations=4, nothingToLearnSteps=3)
    first, second = (Fed(settings, alone, lambda _: Item(error="broken")) for _ in range(2))
    first.step()
    first.step()
    second.state = first.state
    second.feed.resume(first.state, first.feed.save())
    with pytest.raises(Failure, match="reward a failed on every completion, such as with 'broken'"):
        second.step()
    assert second.drawer.asked == []  # it went on with the first's buffer


def test_a_begun_buffer_is_gone_on_with(tmp_path: Path, alone: Ranks) -> None:
    settings = fed_config(tmp_path, iterations=2)
    first, second = Fed(settings, alone, is_a), Fed(settings, alone, is_a)
    first.step()
    second.state = first.state
    second.feed.resume(first.state, first.feed.save())
    assert second.feed.reward == first.feed.reward == 0.5
    for ours, theirs in zip(first.batch().micro_batches, second.batch().micro_batches, strict=True):
        assert ours.input_ids.tolist() == theirs.input_ids.tolist()
        assert (ours.policy is None) == (theirs.policy is None)
        if ours.policy is not None and theirs.policy is not None:
            assert ours.policy.advantages.tolist() == theirs.policy.advantages.tolist()
            assert ours.policy.behaviour is not None
            assert theirs.policy.behaviour is not None
            assert ours.policy.behaviour.tolist() == theirs.policy.behaviour.tolist()
    assert second.drawer.asked == []


def test_at_a_boundary_only_counts_are_saved(tmp_path: Path, alone: Ranks) -> None:
    fed = Fed(
        fed_config(tmp_path), alone, lambda text: is_a(text) if text == "A" else Item(error="e")
    )
    fed.step()
    saved = fed.feed.save()
    assert saved.keys() == {"run.errors", "run.reward"}
    again = Fed(fed_config(tmp_path), alone, lambda _: Item(error="e"))
    again.feed.resume(fed.state, saved)
    again.state = fed.state
    again.step()
    [told] = again.reporter.latest.rewards
    assert told.errors == saved["run.errors"].item() + 16 == 24
    assert (told.mean, told.std) == (None, None)
    assert again.reporter.latest.reward is None


def test_progress_tells_the_last_completions_rewards(tmp_path: Path, alone: Ranks) -> None:
    fed = Fed(fed_config(tmp_path), alone, is_a)
    fed.step()
    latest = fed.reporter.latest
    assert latest.reward == 0.5
    [told] = latest.rewards
    assert (told.name, told.mean, told.std, told.errors) == ("a", 0.5, 0.5, 0)


@pytest.mark.parametrize(
    ("size", "packing", "times"), [(6, True, 1), (8, True, 0), (2, True, 0), (6, False, 0)]
)
def test_groups_that_are_split_to_fit_are_told_once(
    tmp_path: Path,
    alone: Ranks,
    caplog: pytest.LogCaptureFixture,
    size: int,
    packing: bool,
    times: int,
) -> None:
    caplog.set_level("INFO")
    settings = grpo_config(
        tmp_path,
        grpo={"rewards": [ONE]},
        training={"globalBatchSize": 24},
        microBatchSize=size,
        packing=packing,
    )
    fed = Fed(settings, alone, is_a, lambda _, sample: completion("Ax"[sample % 2]))
    fed.step()
    fed.step()
    words = f"micro-batches of {size} do not hold whole groups of 4"
    assert caplog.text.count(words) == times


def test_a_bad_micro_batch_is_named_by_its_rows(tmp_path: Path, alone: Ranks) -> None:
    config = fed_config(tmp_path)
    fed = Fed(config, alone, is_a)
    batch = fed.batch()
    uri = config.recipe.data.train[0].uri
    named = [fed.feed.rows(0, index) for index in range(len(batch.micro_batches))]
    assert len(set(named)) == 4
    prompts = {int(batch.input_ids[0, 0]) for batch in batch.micro_batches}
    assert set(named) == {f"{uri} rows {prompt}" for prompt in prompts}
    assert np.unique(list(prompts)).size == 4
