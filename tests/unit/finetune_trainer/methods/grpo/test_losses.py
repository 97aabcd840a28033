"""Every variant's loss and gradient against plain arithmetic in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from finetune_contract.grpo import GrpoLoss, GrpoRecipe
from finetune_trainer.batch.micro_batch import MicroBatch, PolicyTerms
from finetune_trainer.methods.grpo.losses import GrpoObjective, normaliser
from support.grpo.oracle import Completion, loss

LIMIT = 16
LENGTHS = (3, 16, 1, 7, 5, 9)
ADVANTAGES = (1.3, -0.7, 0.0, 2.1, -1.9, 0.4)
REWARDS = [{"name": "right", "regex": {"pattern": "x"}}]


def recipe(kind: str, **fields: Any) -> GrpoRecipe:
    sampling = {"maxTokens": LIMIT}
    return GrpoRecipe.model_validate(
        {"loss": kind, "sampling": sampling, "rewards": REWARDS, **fields}
    )


def batch(width: float) -> list[Completion]:
    """Completions whose ratios lie to both sides of every clip."""
    draw = np.random.default_rng(7)
    made = []
    for length, advantage in zip(LENGTHS, ADVANTAGES, strict=True):
        now = draw.uniform(-4, -0.1, length)
        then = now + draw.normal(0, width, length)
        made.append(Completion(now, then, now + draw.normal(0, 0.5, length), advantage))
    return made


def micro_batch(completions: list[Completion], *, with_reference: bool) -> MicroBatch:
    count = torch.tensor([len(c.now) for c in completions])
    terms = PolicyTerms(
        advantages=torch.tensor([c.advantage for c in completions])
        .double()
        .repeat_interleave(count),
        behaviour=torch.from_numpy(np.concatenate([c.then for c in completions])),
        reference=torch.from_numpy(np.concatenate([c.reference for c in completions]))
        if with_reference
        else None,
        completions=torch.arange(len(completions)).repeat_interleave(count),
        lengths=count.double(),
    )
    empty = torch.empty(0)
    return MicroBatch(empty, None, None, empty, empty, empty, torch.ones(int(count.sum())), terms)


def computed(
    made: GrpoRecipe, parts: list[list[Completion]]
) -> tuple[float, list[float], dict[str, float]]:
    """Return loss, gradient and stats of a step whose micro-batches are the parts."""
    objective = GrpoObjective(made)
    whole = [c for part in parts for c in part]
    by = normaliser(len(whole), sum(len(c.now) for c in whole), made)
    value, slopes, counts = 0.0, [], torch.zeros(len(objective.stats), dtype=torch.float64)
    for part in parts:
        log_probs = torch.from_numpy(np.concatenate([c.now for c in part])).requires_grad_()
        summed, stats = objective(log_probs, micro_batch(part, with_reference=made.beta > 0))
        assert not stats.requires_grad, "it would keep the graph of every micro-batch"
        (summed / by).backward()
        assert log_probs.grad is not None
        value += summed.item() / by
        slopes += log_probs.grad.tolist()
        counts += stats
    return value, slopes, dict(zip(objective.stats, counts.tolist(), strict=True))


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("kind", list(GrpoLoss))
def test_loss_and_gradient_are_the_papers(kind: GrpoLoss, beta: float) -> None:
    made = recipe(kind, beta=beta)
    width = 3e-3 if kind is GrpoLoss.GSPO else 0.5
    completions = batch(width)
    value, slopes = loss(kind, *made.clips, beta, LIMIT, completions)
    split = [completions[:2], completions[2:3], completions[3:]]
    for parts in ([completions], split):
        found, gradient, _ = computed(made, parts)
        assert found == pytest.approx(value, abs=1e-6)
        assert gradient == pytest.approx([s for own in slopes for s in own], abs=1e-6)


@pytest.mark.parametrize("kind", list(GrpoLoss))
def test_some_are_clipped_to_either_side(kind: GrpoLoss) -> None:
    """The comparison above says something only if clips are in effect."""
    made = recipe(kind, **({"clipHigh": 1.2} if kind is GrpoLoss.CISPO else {}))
    width = 3e-3 if kind is GrpoLoss.GSPO else 0.5
    _, _, stats = computed(made, [batch(width)])
    low, high = made.clips
    below = above = 0
    for c in batch(width):
        ratios = np.exp(c.now - np.array(c.then))
        if kind is GrpoLoss.GSPO:
            ratios = np.full(len(c.now), np.exp((c.now - np.array(c.then)).mean()))
        cap = high if kind is GrpoLoss.CISPO else 1 + high
        below += int((ratios < 1 - low).sum()) * (c.advantage < 0) * (kind is not GrpoLoss.CISPO)
        above += int((ratios > cap).sum()) * (c.advantage > 0)
    assert (stats["clipped_low"], stats["clipped_high"]) == (below, above)
    assert above > 0
    assert below > 0 or kind is GrpoLoss.CISPO
    assert stats["tokens"] == sum(LENGTHS)
    assert stats["kl"] == 0


def test_the_first_step_on_completions_has_the_ratio_one() -> None:
    made = recipe("DAPO")
    log_probs = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    terms = PolicyTerms(
        torch.tensor([1.5, 1.5]).double(), None, None, torch.tensor([0, 0]), torch.tensor([2.0])
    )
    empty = torch.empty(0)
    summed, stats = GrpoObjective(made)(
        log_probs, MicroBatch(empty, None, None, empty, empty, empty, torch.ones(2), terms)
    )
    summed.backward()
    assert summed.item() == pytest.approx(-3.0)
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == pytest.approx([-1.5, -1.5])
    assert stats.tolist() == [2, 0, 0, 0]


def test_a_micro_batch_without_rows_learns_nothing() -> None:
    for log_prob in (-1.0, 0.0):
        log_probs = torch.tensor([log_prob], requires_grad=True)
        idle = MicroBatch.idle(torch.device("cpu"))
        summed, stats = GrpoObjective(recipe("DAPO"))(log_probs, idle)
        summed.backward()
        assert log_probs.grad is not None
        assert (summed.item(), log_probs.grad.tolist(), stats.sum().item()) == (0, [0], 0)


def test_what_a_step_is_divided_by() -> None:
    by = {kind: normaliser(6, 41, recipe(kind)) for kind in GrpoLoss}
    assert by == {"GRPO": 6, "GSPO": 6, "DrGRPO": 6 * LIMIT, "DAPO": 41, "CISPO": 41}
    assert {normaliser(0, 0, recipe(kind)) for kind in GrpoLoss} == {1, LIMIT}


def test_clips_are_the_losses_own_unless_given() -> None:
    assert recipe("GSPO").clips == (3e-4, 4e-4)
    assert recipe("DAPO").clips == (0.2, 0.28)
    assert recipe("GRPO").clips == recipe("DrGRPO").clips == (0.2, 0.2)
    assert recipe("CISPO").clips == (0.0, 5.0)
    assert recipe("DAPO", clipLow=0.1, clipHigh=0.0).clips == (0.1, 0.0)
