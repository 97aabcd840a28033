"""Rollouts of a buffer: which prompts, what replaces groups without spread, what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from finetune_rewards.scores.samples import Item
from finetune_trainer.methods.grpo.metrics import buffer_metrics
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.errors import Failure
from finetune_trainer.rollout.base import Completion, Request
from support.grpo.stand_ins import ONE, ROWS, TWO, Rolled, completion, halves, rolled_config
from support.trainer.ranks_beside import RanksBeside


def test_groups_are_of_the_plans_prompts(tmp_path: Any, alone: Ranks) -> None:
    rolled = Rolled(rolled_config(tmp_path), alone)
    found = rolled.collect(2)
    assert found.rows.tolist() == rolled.order.chosen.batch(2).tolist()
    assert rolled.engine.asked == [
        (2, row, 0, slot) for slot, row in enumerate(found.rows.tolist())
    ]
    [samples] = rolled.panel.asked
    assert samples.columns == {"row": [row for row in found.rows for _ in range(4)]}
    assert samples.prompts == [str(row) for row in found.rows for _ in range(4)]
    assert samples.step == 3
    assert samples.completion_ids == [one.tokens.tolist() for one in found.completions]


def test_what_is_drawn_for_a_prompt_is_the_same_whatever_others_are_left_out(
    tmp_path: Any, alone: Ranks
) -> None:
    out = range(1, ROWS, 3)
    whole = Rolled(rolled_config(tmp_path), alone)
    sparse = Rolled(rolled_config(tmp_path), alone, left_out=out)
    for buffer in range(ROWS // 4):
        whole.collect(buffer), sparse.collect(buffer)
    assert sparse.engine.asked == [key for key in whole.engine.asked if key[1] not in out]


def test_groups_are_replaced_by_as_many_as_are_not_left_out(tmp_path: Any, alone: Ranks) -> None:
    config = rolled_config(tmp_path, maxResamples=3)
    rolled = Rolled(config, alone, lambda *_: completion("x"), left_out=range(0, ROWS, 2))
    for buffer in range(ROWS // 4):
        found = rolled.collect(buffer)
        rounds = [rolled.order.spare.batch(3 * buffer + at) for at in range(3)]
        assert found.drawn == len(found.rows) + sum(
            min(len(found.rows), len(spare)) for spare in rounds
        )
        assert len(found.completions) == 4 * len(found.rows) == len(found.scores.values)
    slots = {key[3] for key in rolled.engine.asked if key[2] > 0}
    assert slots == {0, 1, 2, 3}, "each in the slot of the group that it replaces"


def test_without_resampling_groups_stay(tmp_path: Any, alone: Ranks) -> None:
    rolled = Rolled(rolled_config(tmp_path), alone)
    found = rolled.collect()
    assert found.found.spread.tolist() == [row % 2 == 0 for row in found.rows]
    assert found.drawn == 4
    assert found.first is None


def test_a_buffer_in_which_all_groups_have_a_spread_is_drawn_once(
    tmp_path: Any, alone: Ranks
) -> None:
    unequal = lambda request, sample: completion("Ax"[sample % 2])  # noqa: E731
    rolled = Rolled(rolled_config(tmp_path, maxResamples=3), alone, unequal)
    assert rolled.collect().first is None
    assert len(rolled.panel.asked) == 1


def test_groups_without_spread_are_replaced_within_the_bound(tmp_path: Any, alone: Ranks) -> None:
    shares = []
    for rounds in (0, 1, 3):
        rolled = Rolled(rolled_config(tmp_path, maxResamples=rounds), alone)
        found = [rolled.collect(buffer) for buffer in range(12)]
        shares.append(np.mean([one.found.spread.mean() for one in found]))
        drawn = sum(one.drawn for one in found) - 48
        assert drawn == sum(key[2] > 0 for key in rolled.engine.asked)
        assert bool(drawn) == bool(rounds)
        assert max(key[2] for key in rolled.engine.asked) == rounds
    assert shares[2] >= 1.8 * shares[0]
    assert shares[0] < shares[1] < shares[2]


def test_a_replaced_group_takes_the_place_with_all_that_belongs_to_it(
    tmp_path: Any, alone: Ranks
) -> None:
    rolled = Rolled(rolled_config(tmp_path, maxResamples=4), alone)
    found = rolled.collect(1)
    first = rolled.order.rows(1)
    kept = first % 2 == 0
    np.testing.assert_array_equal(found.rows[kept], first[kept])
    assert not np.isin(found.rows[~kept], first).any()
    last = {key[3]: key for key in rolled.engine.asked}
    for slot, row in enumerate(found.rows):
        assert last[slot][1] == row
        group = found.completions[4 * slot : 4 * slot + 4]
        texts = [chr(one.tokens[0]) for one in group]
        assert texts == [chr(halves(Request(first, last[slot], 4), i).tokens[0]) for i in range(4)]
        expected = [float(text == "A") for text in texts]
        assert found.scores.values[4 * slot : 4 * slot + 4, 0].tolist() == expected


def test_resampling_is_the_same_each_time(tmp_path: Any, alone: Ranks) -> None:
    once, again = (Rolled(rolled_config(tmp_path, maxResamples=2), alone) for _ in range(2))
    once.collect(0)
    assert once.collect(5).rows.tolist() == again.collect(5).rows.tolist()
    assert once.engine.asked[-4:] == again.engine.asked[-4:]


def test_a_stop_leaves_the_buffer_unmade(tmp_path: Any, alone: Ranks) -> None:
    rolled = Rolled(rolled_config(tmp_path), alone)
    assert rolled.collector.collect(0, 0, lambda: True) is None
    answers = iter([False, True])
    assert rolled.collector.collect(0, 0, lambda: next(answers)) is None
    assert rolled.panel.asked == []


def test_a_stop_while_groups_are_replaced_leaves_the_buffer_unmade(
    tmp_path: Any, alone: Ranks
) -> None:
    rolled = Rolled(rolled_config(tmp_path, maxResamples=1), alone)
    rolled.collect(1)
    stops = lambda: any(key[2] > 0 for key in rolled.engine.asked)  # noqa: E731
    rolled.engine.asked.clear()
    assert rolled.collector.collect(1, 3, stops) is None
    assert len(rolled.panel.asked) == 3, "the first round was scored"


def test_a_stop_gives_up_scores_that_are_not_there_yet(tmp_path: Any, alone: Ranks) -> None:
    rolled = Rolled(rolled_config(tmp_path), alone)
    rolled.panel.waits = 3
    answers = iter([False, False, False, True])  # drawn, then before and while scoring
    assert rolled.collector.collect(0, 0, lambda: next(answers)) is None
    assert rolled.panel.given_up == 1
    rolled.panel.waits = 1
    assert rolled.collect().scores.values.shape == (16, 1)
    assert rolled.panel.given_up == 1


def test_what_any_rank_waits_for_is_told(tmp_path: Any, alone: Ranks) -> None:
    told: list[str | None] = []
    another = True

    def beside_another(made: list[Any]) -> list[Any]:
        scoring = isinstance(made[0], tuple) and isinstance(made[0][0], bool)
        if not another or not scoring:
            return made
        told.append(rolled.reporter.latest.note)
        busy, done, _ = made[0]
        return [*made, (busy, done, "waits for reward b"), made[0]]

    rolled = Rolled(rolled_config(tmp_path), RanksBeside(alone, beside_another))
    rolled.panel.waits, rolled.panel.waits_for = 2, "waits for reward a"
    rolled.reporter.noted("checkpoints", "checkpoint of step 2 failed")
    rolled.collect()
    failed = "checkpoint of step 2 failed"
    both = f"{failed}; waits for reward a; waits for reward b"
    assert told == [failed, both, both]
    assert rolled.reporter.latest.note == f"{failed}; waits for reward b"
    another = False
    rolled.collect()
    assert rolled.reporter.latest.note == failed


def test_progress_counts_completions(tmp_path: Any, alone: Ranks) -> None:
    rolled = Rolled(rolled_config(tmp_path), alone)
    told = []
    engine, reporter = rolled.engine, rolled.reporter
    engine.draws = lambda request, sample: (
        told.append((str(reporter.latest.phase), reporter.latest.done, reporter.latest.total))
        or completion("A")
    )
    rolled.collect()
    assert told[0] == ("Rollout", 0, 16)
    assert told[-1] == ("Rollout", 12, 16)
    assert reporter.latest.phase == "Download"  # as before


def test_progress_counts_completions_that_are_scored_on_all_ranks(
    tmp_path: Any, alone: Ranks
) -> None:
    told: list[Any] = []

    def beside_another(made: list[Any]) -> list[Any]:
        latest = rolled.reporter.latest
        if latest.phase != "Score" or not isinstance(made[0][0], bool):
            return made
        told.append((latest.done, latest.total))
        return [*made, (made[0][0], 5, None)]

    rolled = Rolled(rolled_config(tmp_path), RanksBeside(alone, beside_another))
    rolled.panel.waits = 3
    rolled.collect()
    assert told == [(0, 16), (6, 16), (7, 16), (8, 16)]


def test_metrics_tell_rewards_apart_from_their_errors(tmp_path: Any, alone: Ranks) -> None:
    items = {"A": Item(score=1.0), "B": Item(), "C": Item(error="broken"), "D": Item(score=0.0)}
    rolled = Rolled(
        rolled_config(tmp_path, rewards=[ONE, TWO]),
        alone,
        lambda request, sample: completion("ABCD"[sample] * (sample + 1), truncated=sample == 3),
        {"a": lambda text: items[text[0]], "b": lambda text: Item(score=2.0)},
    )
    metrics = rolled.metrics()
    assert metrics["reward/a/mean"] == 0.5
    assert metrics["reward/a/std"] == 0.5
    assert metrics["reward/a/errors"] == 4
    assert metrics["reward/a/abstained"] == 4
    assert (metrics["reward/b/mean"], metrics["reward/b/std"]) == (2, 0)
    assert metrics["reward/b/seconds"] == 0.5
    assert metrics["reward/mean"] == pytest.approx((3 + 4 + 4 + 2) / 4)
    assert metrics["reward/std"] == pytest.approx(np.std([3, 4, 4, 2]))
    assert metrics["rollout/tokens_mean"] == 2.5
    assert metrics["rollout/tokens_max"] == 4
    assert metrics["rollout/truncated_share"] == 0.25
    assert metrics["rollout/zero_variance_share"] == 0
    assert metrics["rollout/replaced_groups"] == 0


def test_errors_of_replaced_groups_count(tmp_path: Any, alone: Ranks) -> None:
    """What broke is not mended by drawing again; the completions that are left have no error."""
    run = rolled_config(tmp_path, maxResamples=8)
    broken_rows = lambda request, sample: completion(  # noqa: E731
        "!" if request.key[1] % 2 else "Ax"[sample % 2]
    )
    items = {"!": Item(error="broken"), "A": Item(score=1.0), "x": Item(score=0.0)}
    rolled = Rolled(run, alone, broken_rows, {"a": lambda text: items[text]})
    found = rolled.collect()
    assert not found.scores.failed.any()
    failures = 4 * sum(row % 2 for _, row, _, _ in rolled.engine.asked)
    assert found.scores.failures.tolist() == [failures]
    metrics = buffer_metrics(found, rolled.recipe.rewards)
    assert metrics["reward/a/errors"] == failures > 0
    assert metrics["reward/a/abstained"] == 0


def test_metrics_tell_what_resampling_costs(tmp_path: Any, alone: Ranks) -> None:
    rolled = Rolled(rolled_config(tmp_path, maxResamples=2), alone)
    metrics = rolled.metrics(1)
    assert metrics["rollout/replaced_groups"] == len(rolled.engine.asked) - 4 > 0
    assert metrics["rollout/zero_variance_share"] < 0.5


def test_means_are_not_of_the_groups_that_resampling_picked(tmp_path: Any, alone: Ranks) -> None:
    def longer_where_equal(request: Request, sample: int) -> Completion:
        drawn = halves(request, sample)
        return completion("AAAA", truncated=True) if request.key[1] % 2 else drawn

    means = ("reward/mean", "reward/a/mean", "rollout/tokens_mean", "rollout/truncated_share")
    told = []
    for rounds in (0, 8):
        scorers = {"a": lambda text: Item(score=float("A" in text))}
        rolled = Rolled(
            rolled_config(tmp_path, maxResamples=rounds), alone, longer_where_equal, scorers
        )
        metrics = rolled.metrics(1)
        assert bool(metrics["rollout/replaced_groups"]) == bool(rounds)
        told.append([metrics[name] for name in means])
    assert told[0] == told[1]


def test_what_ends_a_run_keeps_its_reason(tmp_path: Any, alone: Ranks) -> None:
    from finetune_contract.reasons import Reason
    from finetune_rewards.scores.errors import RewardFailed

    def broken(text: str) -> Item:
        raise RewardFailed("reward a failed on 100 completions in a row")

    rolled = Rolled(rolled_config(tmp_path), alone, scorers={"a": broken})
    with pytest.raises(Failure, match="reward a failed on 100") as caught:
        rolled.collect()
    assert caught.value.reason is Reason.REWARD_FAILED
    assert caught.value.rank == 0
