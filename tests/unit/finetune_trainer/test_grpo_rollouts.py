"""Rollouts of a buffer: which prompts, what replaces groups without spread, what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from finetune_contract.recipe import Recipe
from finetune_contract.runconfig import RunConfig
from finetune_rewards.samples import Item
from finetune_trainer.distributed import Ranks
from finetune_trainer.errors import Failure
from finetune_trainer.grpo.idle import cause
from finetune_trainer.grpo.metrics import buffer_metrics
from finetune_trainer.grpo.plan import PromptPlan
from finetune_trainer.grpo.rollouts import Collector, Rollouts
from finetune_trainer.progress import Reporter
from finetune_trainer.rollout.base import Completion, Request
from support.drawn import FunctionEngine, FunctionPanel, Letters, completion, numbered_prompts
from support.grpo_runs import grpo_config

ROWS = 64
ONE = {"name": "a", "regex": {"pattern": "A"}}
TWO = {"name": "b", "regex": {"pattern": "B"}}


def config(directory: Any, *, training: Any = None, **grpo: Any) -> RunConfig:
    return grpo_config(directory, grpo={"rewards": [ONE], **grpo}, training=training)


def halves(request: Request, sample: int) -> Completion:
    """Draw unequal completions for even rows, equal ones for odd rows."""
    row = request.key[1]
    return completion("A" if row % 2 or sample % 2 else "x")


def is_a(text: str) -> Item:
    return Item(score=float(text == "A"))


class Rolled:
    """A collector over stand-ins."""

    def __init__(
        self, run: RunConfig, ranks: Ranks, draws: Any = halves, scorers: Any = None
    ) -> None:
        assert run.recipe.grpo is not None
        self.recipe = run.recipe.grpo
        self.prompts = numbered_prompts(ROWS)
        self.plan = PromptPlan.of(run.recipe, self.prompts.data)
        self.engine = FunctionEngine(draws)
        self.panel = FunctionPanel(scorers or {"a": is_a})
        self.reporter = Reporter()
        self._collector = Collector(
            self.recipe,
            self.plan,
            self.prompts,
            Letters(),
            self.engine,
            self.panel,
            ranks,
            self.reporter,
        )

    def collect(self, buffer: int = 0) -> Rollouts:
        found = self._collector.collect(buffer, 3, lambda: False)
        assert found is not None
        return found

    def metrics(self, buffer: int = 0) -> dict[str, float]:
        return buffer_metrics(self.collect(buffer), self.recipe.rewards)


def test_groups_are_of_the_plans_prompts(tmp_path: Any, alone: Ranks) -> None:
    rolled = Rolled(config(tmp_path), alone)
    found = rolled.collect(2)
    assert found.rows.tolist() == rolled.plan.chosen.batch(2).tolist()
    assert rolled.engine.asked == [
        (2, row, 0, slot) for slot, row in enumerate(found.rows.tolist())
    ]
    [samples] = rolled.panel.asked
    assert samples.columns == {"row": [row for row in found.rows for _ in range(4)]}
    assert samples.prompts == [str(row) for row in found.rows for _ in range(4)]
    assert samples.step == 3
    assert samples.completion_ids == [one.tokens.tolist() for one in found.completions]


def test_an_epoch_takes_each_prompt_once_and_iterations_reuse_buffers(tmp_path: Any) -> None:
    def plan(**training: Any) -> PromptPlan:
        recipe: Recipe = config(tmp_path, training=training, iterations=3).recipe
        return PromptPlan.of(recipe, numbered_prompts(10).data)

    assert plan(epochs=2).steps == 15  # 20 prompts, 4 to a buffer, 3 steps on each
    assert plan(maxSteps=7).steps == 7
    seen = np.concatenate([plan(epochs=2).rows(buffer) for buffer in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))


def test_without_resampling_groups_stay(tmp_path: Any, alone: Ranks) -> None:
    rolled = Rolled(config(tmp_path), alone)
    found = rolled.collect()
    assert found.found.spread.tolist() == [row % 2 == 0 for row in found.rows]
    assert found.cost.drawn == 4


def test_groups_without_spread_are_replaced_within_the_bound(tmp_path: Any, alone: Ranks) -> None:
    shares = []
    for rounds in (0, 1, 3):
        rolled = Rolled(config(tmp_path, maxResamples=rounds), alone)
        found = [rolled.collect(buffer) for buffer in range(12)]
        shares.append(np.mean([one.found.spread.mean() for one in found]))
        drawn = sum(one.cost.drawn for one in found) - 48
        assert drawn == sum(key[2] > 0 for key in rolled.engine.asked)
        assert bool(drawn) == bool(rounds)
        assert max(key[2] for key in rolled.engine.asked) == rounds
    assert shares[2] >= 1.8 * shares[0]
    assert shares[0] < shares[1] < shares[2]


def test_a_replaced_group_takes_the_place_with_all_that_belongs_to_it(
    tmp_path: Any, alone: Ranks
) -> None:
    rolled = Rolled(config(tmp_path, maxResamples=4), alone)
    found = rolled.collect(1)
    first = rolled.plan.rows(1)
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
    once, again = (Rolled(config(tmp_path, maxResamples=2), alone) for _ in range(2))
    once.collect(0)
    assert once.collect(5).rows.tolist() == again.collect(5).rows.tolist()
    assert once.engine.asked[-4:] == again.engine.asked[-4:]


def test_a_stop_leaves_the_buffer_unmade(tmp_path: Any, alone: Ranks) -> None:
    rolled = Rolled(config(tmp_path), alone)
    assert rolled._collector.collect(0, 0, lambda: True) is None
    answers = iter([False, True])
    assert rolled._collector.collect(0, 0, lambda: next(answers)) is None
    assert rolled.panel.asked == []


def test_a_stop_gives_up_scores_that_are_not_there_yet(tmp_path: Any, alone: Ranks) -> None:
    rolled = Rolled(config(tmp_path), alone)
    rolled.panel.waits = 3
    answers = iter([False, False, False, True])  # drawn, then before and while scoring
    assert rolled._collector.collect(0, 0, lambda: next(answers)) is None
    assert rolled.panel.given_up == 1
    rolled.panel.waits = 1
    assert rolled.collect().scores.values.shape == (16, 1)
    assert rolled.panel.given_up == 1


def test_progress_counts_completions(tmp_path: Any, alone: Ranks) -> None:
    rolled = Rolled(config(tmp_path), alone)
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


def test_metrics_tell_rewards_apart_from_their_errors(tmp_path: Any, alone: Ranks) -> None:
    items = {"A": Item(score=1.0), "B": Item(), "C": Item(error="broken"), "D": Item(score=0.0)}
    rolled = Rolled(
        config(tmp_path, rewards=[ONE, TWO]),
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
    assert metrics["rollout/tokens_mean"] == 2.5
    assert metrics["rollout/tokens_max"] == 4
    assert metrics["rollout/truncated_share"] == 0.25
    assert metrics["rollout/zero_variance_share"] == 0
    assert metrics["rollout/replaced_groups"] == 0


def test_metrics_tell_what_resampling_costs(tmp_path: Any, alone: Ranks) -> None:
    rolled = Rolled(config(tmp_path, maxResamples=2), alone)
    metrics = rolled.metrics(1)
    assert metrics["rollout/replaced_groups"] == len(rolled.engine.asked) - 4 > 0
    assert metrics["rollout/zero_variance_share"] < 0.5


@pytest.mark.parametrize(
    ("drawn", "answers", "settings", "words"),
    [
        ("A", {"a": Item(score=1.0)}, {}, "reward a gave 1 to every completion: take prompts"),
        ("A", {"a": Item(score=float("0.25"))}, {}, "reward a gave 0.25 to every completion"),
        ("A", {"a": Item(error="ValueError")}, {}, "reward a failed on every completion, such as"),
        ("A", {"a": Item()}, {}, "reward a gave no score to any completion"),
        (
            "A",
            {"a": Item(error="broken"), "b": Item(score=1.0)},
            {"rewards": [ONE, TWO]},
            "reward a failed on every completion, such as with 'broken': mend it; `finetune reward "
            "test` shows it on a laptop; reward b gave 1 to every completion",
        ),
        (
            "A",
            {"a": Item(error="broken"), "b": Item(score=1.0)},
            {"rewards": [{**ONE, "weight": 0, "gate": 0.5}, TWO]},
            "reward a failed on every completion",
        ),
        (
            "A",
            {"a": Item(error="broken"), "b": Item()},
            {"rewards": [ONE, TWO]},
            "reward b gave no score to any completion",
        ),
    ],
)
def test_the_cause_names_the_reward_and_a_remedy(
    tmp_path: Any, alone: Ranks, drawn: str, answers: Any, settings: Any, words: str
) -> None:
    scorers = {name: (lambda text, item=item: item) for name, item in answers.items()}
    rolled = Rolled(config(tmp_path, **settings), alone, lambda *_: completion(drawn), scorers)
    found = rolled.collect()
    assert not found.found.spread.any()
    assert words in cause(found, rolled.recipe)


def test_the_cause_may_be_the_length(tmp_path: Any, alone: Ranks) -> None:
    run = config(tmp_path, maskTruncated=True)
    draws = lambda request, sample: completion("Ax"[sample % 2], truncated=True)  # noqa: E731
    rolled = Rolled(run, alone, draws)
    found = rolled.collect()
    assert not found.found.spread.any()
    assert cause(found, rolled.recipe) == (
        "every completion was cut at rollout.maxTokens (8) before its end: raise it, or fine-tune "
        "the model to answer shortly first"
    )


def test_the_cause_tells_of_failures_beside_abstentions(tmp_path: Any, alone: Ranks) -> None:
    items = {"A": Item(error="broken"), "x": Item()}
    draws = lambda request, sample: completion("Axxx"[sample])  # noqa: E731
    rolled = Rolled(config(tmp_path), alone, draws, {"a": lambda text: items[text]})
    assert cause(rolled.collect(), rolled.recipe) == (
        "reward a failed on 4 of 16 completions, such as with 'broken', and gave no score to the "
        "others: mend it"
    )


def test_other_prompts_are_no_remedy_for_rewards_that_are_silent(
    tmp_path: Any, alone: Ranks
) -> None:
    scorers = {"a": lambda text: Item(error="broken"), "b": lambda text: Item()}
    rolled = Rolled(config(tmp_path, rewards=[ONE, TWO]), alone, scorers=scorers)
    assert "take prompts" not in cause(rolled.collect(), rolled.recipe)


def test_the_cause_is_no_reward_that_does_not_count(tmp_path: Any, alone: Ranks) -> None:
    rewards = [ONE, {**TWO, "weight": 0}]
    scorers = {"a": lambda text: Item(score=0.0), "b": lambda text: Item(score=1.0)}
    rolled = Rolled(config(tmp_path, rewards=rewards), alone, scorers=scorers)
    told = cause(rolled.collect(), rolled.recipe)
    assert "reward a gave 0" in told
    assert "reward b" not in told


def test_some_cut_completions_are_not_the_cause(tmp_path: Any, alone: Ranks) -> None:
    draws = lambda request, sample: completion("x", truncated=sample == 0)  # noqa: E731
    rolled = Rolled(config(tmp_path), alone, draws)
    assert cause(rolled.collect(), rolled.recipe).startswith("reward a gave 0 to every completion")


def test_the_cause_may_differ_between_prompts(tmp_path: Any, alone: Ranks) -> None:
    rolled = Rolled(
        config(tmp_path), alone, lambda request, _: completion("Ax"[request.key[3] % 2])
    )
    found = rolled.collect()
    assert "reward a gave the same to all completions of each prompt" in cause(found, rolled.recipe)


def test_what_ends_a_run_keeps_its_reason(tmp_path: Any, alone: Ranks) -> None:
    from finetune_contract.reasons import Reason
    from finetune_rewards.errors import RewardFailed

    def broken(text: str) -> Item:
        raise RewardFailed("reward a failed on 100 completions in a row")

    rolled = Rolled(config(tmp_path), alone, scorers={"a": broken})
    with pytest.raises(Failure, match="reward a failed on 100") as caught:
        rolled.collect()
    assert caught.value.reason is Reason.REWARD_FAILED
    assert caught.value.rank == 0
