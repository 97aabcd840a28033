"""Rollouts of several ranks: each draws and scores its share, then all know all of them."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_rewards.scores.samples import Item
from finetune_trainer.methods.grpo.rollouts import Rollouts
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.rollout.base import Completion, Request
from support.grpo.stand_ins import Rolled, completion, rolled_config
from support.trainer.thread_ranks import on_ranks


def drawn(request: Request, sample: int) -> Completion:
    """Draw what no other prompt, round or sample has."""
    _, row, attempt, _ = request.key
    text = chr(1000 + 40 * row + 4 * attempt + sample)
    return completion(text * (1 + sample), truncated=sample == row % 4)


def odd(text: str) -> Item:
    """Score by the letter; some fail, some are left out, and a third of all rows has no spread."""
    letter = ord(text[0]) - 1000
    if letter // 40 % 3 == 0:
        return Item(score=0.5)
    if letter % 13 == 0:
        return Item(error=f"no {letter}")
    return Item(score=None if letter % 11 == 0 else letter / 64)


def told(found: Rollouts) -> dict[str, Any]:
    return {
        "rows": found.rows.tolist(),
        "tokens": [one.tokens.tolist() for one in found.completions],
        "truncated": found.truncated.tolist(),
        "scores": np.nan_to_num(found.scores.values, nan=-9).tolist(),
        "failed": found.scores.failed.tolist(),
        "failures": found.scores.failures.tolist(),
        "errors": found.scores.errors,
        "advantages": found.found.values.tolist(),
        "drawn": found.drawn,
    }


def wanted(rolled: Rolled, attempt: int) -> list[tuple[tuple[int, ...], int]]:
    """Return key and sample of each completion that a rank was asked for in a round."""
    asked = zip(rolled.engine.asked, rolled.engine.wanted, strict=True)
    return [(key, sample) for key, samples in asked if key[2] == attempt for sample in samples]


@pytest.mark.parametrize("world", [2, 3, 5, 17])
def test_rollouts_are_alike_on_any_number_of_ranks(
    tmp_path: Path, alone: Ranks, world: int
) -> None:
    """Three and five ranks share groups; seventeen have sixteen completions, or fewer."""
    config = rolled_config(tmp_path, maxResamples=2)
    one = Rolled(config, alone, drawn, {"a": odd})
    expected = one.collect(3)
    assert expected.drawn > 4

    def roll(ranks: Any) -> tuple[Rolled, Rollouts]:
        rolled = Rolled(config, ranks, drawn, {"a": odd})
        return rolled, rolled.collect(3)

    made = on_ranks(world, roll)
    for _, found in made:
        assert told(found) == told(expected)
    rounds = {key[2] for key in one.engine.asked}
    for attempt in rounds:
        whole = wanted(one, attempt)
        shares = [wanted(rolled, attempt) for rolled, _ in made]
        assert [*chain(*shares)] == whole, "in order, so that few prompts are on two ranks"
        sizes = [len(share) for share in shares]
        assert max(sizes) - min(sizes) <= 1
    for rolled, _ in made:
        assert sum(map(len, rolled.panel.asked)) == sum(map(len, rolled.engine.wanted))
        assert len({*rolled.engine.asked}) == len(rolled.engine.asked)


def test_progress_of_drawing_is_of_all_ranks_as_far_as_one_can_tell(tmp_path: Path) -> None:
    """Twelve completions are ready on three ranks when rank 0 has its first group of four."""

    def roll(ranks: Any) -> list[int]:
        counts: list[int] = []
        rolled = Rolled(rolled_config(tmp_path), ranks, drawn, {"a": odd})
        reach = rolled.reporter.reach
        rolled.reporter.reach = lambda done: (counts.append(done), reach(done))[1]
        rolled.collect()
        return counts

    for world, drawing in ((2, [8, 16]), (3, [12, 16])):
        assert on_ranks(world, roll)[0][: len(drawing)] == drawing


def test_a_stop_that_one_rank_sees_while_drawing_leaves_the_buffer_unmade_on_all(
    tmp_path: Path,
) -> None:
    def roll(ranks: Any) -> tuple[Any, int]:
        rolled = Rolled(rolled_config(tmp_path), ranks, drawn, {"a": odd})
        if ranks.rank == 1:
            rolled.engine.draw = lambda *_: None
        return rolled.collector.collect(0, 0, lambda: False), len(rolled.panel.asked)

    assert on_ranks(2, roll) == [(None, 0), (None, 0)]


def test_the_slowest_ranks_scores_are_waited_for(tmp_path: Path, alone: Ranks) -> None:
    config = rolled_config(tmp_path)
    expected = told(Rolled(config, alone, drawn, {"a": odd}).collect())

    def roll(ranks: Any) -> dict[str, Any]:
        rolled = Rolled(config, ranks, drawn, {"a": odd})
        rolled.panel.waits = 3 * ranks.rank
        return told(rolled.collect())

    assert on_ranks(2, roll) == [expected, expected]
