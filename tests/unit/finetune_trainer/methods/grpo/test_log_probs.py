"""The log-probabilities that a buffer's steps compare with: whose, when, and on which rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune_rewards.scores.samples import Item
from finetune_trainer.process.distributed import Ranks
from support.grpo.configs import grpo_config
from support.grpo.feeds import ONE, Fed, fed_config, is_a
from support.grpo.stand_ins import completion
from support.trainer.thread_ranks import on_ranks


def test_behaviour_is_of_the_model_that_drew_and_reference_of_the_one_that_began(
    tmp_path: Path, alone: Ranks
) -> None:
    fed = Fed(fed_config(tmp_path, iterations=2, beta=0.5), alone, is_a)
    for weight in (-2.0, -3.0):
        fed.engine.weight = weight
        for _ in range(2):
            policies = [one.policy for one in fed.batch().micro_batches]
            for batch, policy in zip(fed.batch().micro_batches, policies, strict=True):
                assert policy.behaviour.tolist() == (weight * batch.targets).tolist()
                assert policy.reference.tolist() == (-batch.targets).tolist()
            fed.step()
            assert fed.engine.weight == weight, "it trains on as it was"
        fed.engine.weight = -5.0
    assert fed.engine.asked == 4


def test_with_a_divergence_all_that_is_kept_is_learned(tmp_path: Path, alone: Ranks) -> None:
    """Without one, only what has an advantage."""
    draws = lambda request, sample: completion("A" if request.key[3] else "Ax"[sample % 2])  # noqa: E731
    for beta, learned in ((0.0, 4), (0.1, 16)):
        fed = Fed(fed_config(tmp_path, beta=beta), alone, is_a, draws)
        batches = fed.batch().micro_batches
        assert sum(len(one.targets) for one in batches if one.policy is not None) == learned
        has = [one.policy.reference is not None for one in batches if one.policy is not None]
        assert set(has) == {beta > 0}


def test_passes_in_which_nothing_is_learned_are_not_made(tmp_path: Path, alone: Ranks) -> None:
    draws = lambda request, sample: completion("A" if request.key[3] else "Ax"[sample % 2])  # noqa: E731
    fed = Fed(fed_config(tmp_path, iterations=2), alone, is_a, draws)
    assert len(fed.batch().micro_batches) == 4
    assert fed.engine.passes == 1


@pytest.mark.parametrize("world", [1, 2])
def test_every_rank_gets_its_share_and_rank_0_keeps_all(tmp_path: Path, world: int) -> None:
    config = grpo_config(
        tmp_path,
        grpo={"rewards": [ONE], "iterations": 2},
        microBatchSize=4,
        processesPerWorker=world,
    )
    draws = lambda request, sample: completion(  # noqa: E731
        ("A" if sample % 2 and request.key[3] else "x") * (1 + sample)
    )

    def made(ranks: Any) -> tuple[Any, Any]:
        fed = Fed(config, ranks, lambda text: Item(score=float("A" in text)), draws)
        return fed.batch(), fed.feed.save()

    found = on_ranks(world, made)
    sizes = {len(batch.micro_batches) for batch, _ in found}
    assert sizes == {4 // world}  # of which three hold a group each
    completions = 0
    for batch, _ in found:
        for one in batch.micro_batches:
            if one.policy is not None:
                assert one.policy.behaviour.tolist() == (-one.targets).tolist()
                completions += len(one.policy.lengths)
    saved = found[0][1]
    learned = saved["learned"].numpy()
    assert completions == learned.sum() == 12
    at = np.repeat(learned, saved["lengths"].numpy())
    expected = np.where(at, -saved["tokens"].numpy(), 0)
    assert saved["behaviour"].tolist() == expected.tolist()
    assert (saved["behaviour"].dtype, saved["run.errors"].dtype) == (torch.float32, torch.int64)
    assert all(not told for _, told in found[1:])
