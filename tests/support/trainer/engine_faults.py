"""One rank that does single optimizer steps with faults planted in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetune_contract.runconfig import RunConfig
from finetune_trainer.adapter.load import load_adapted
from finetune_trainer.batch.micro_batch import MicroBatch
from finetune_trainer.data.encode import EncodedRow
from finetune_trainer.methods.sft.learning import SupervisedObjective
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.errors import Failure
from finetune_trainer.step.engine import Engine, NonFinite
from finetune_trainer.step.sharding import prepare_deepspeed, sharded_loading
from support.trainer.oracle import path_of
from support.trainer.parts import resolved_run

LENGTHS = ((12, 5), (9, 20))  # of each rank's rows, a micro-batch each
TOKENS = sum(length - 1 for lengths in LENGTHS for length in lengths)
RATE = 1e-2
UNUSED = "layers.1.self_attn.k_proj"

Summed = tuple[torch.Tensor, torch.Tensor]


def batches(rank: int) -> list[MicroBatch]:
    draw = np.random.default_rng(rank)
    rows = [
        EncodedRow(draw.integers(3, 250, n).astype(np.int32), np.arange(n) > 0)
        for n in LENGTHS[rank]
    ]
    return [MicroBatch.of([row], torch.device("cpu"), packed=True) for row in rows]


@contextmanager
def made(config: RunConfig, ranks: Ranks) -> Iterator[Engine]:
    run = resolved_run(config, ranks)
    with sharded_loading(run):
        model = load_adapted(config.recipe, path_of(config.recipe.model.uri)).model
        engine = Engine(model, SupervisedObjective(), run)
    yield engine
    engine.deepspeed.destroy()


def weights(engine: Engine) -> dict[str, torch.Tensor]:
    with engine.gathered():
        return {n: p.detach().clone() for n, p in engine.parameters.items()}


def same(engine: Engine, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(now, before[name]) for name, now in weights(engine).items())


def refused(engine: Engine, rank: int) -> dict[str, Any]:
    before = weights(engine)
    try:
        engine.step(batches(rank), TOKENS, RATE, lambda: False)
    except NonFinite as failure:
        return {
            "message": failure.message,
            "reason": failure.reason,
            "rank": failure.rank,
            "micro_batch": failure.micro_batch,
            "unchanged": same(engine, before),
        }
    return {}


def not_finite_loss(config: RunConfig, ranks: Ranks) -> dict[str, Any]:
    with made(config, ranks) as engine:
        plain = engine._objective

        def poisoned(log_probs: torch.Tensor, batch: MicroBatch) -> Summed:
            last = engine._pass == 1 and ranks.rank == 1
            loss, stats = plain(log_probs, batch)
            return loss * (float("nan") if last else 1.0), stats

        engine._objective = poisoned
        return refused(engine, ranks.rank)


def not_finite_gradient(
    config: RunConfig, ranks: Ranks, prepare: Callable[[Engine], None] = lambda engine: None
) -> dict[str, Any]:
    with made(config, ranks) as engine:
        prepare(engine)
        plain = engine._objective

        def poisoned(log_probs: torch.Tensor, batch: MicroBatch) -> Summed:
            if engine._pass == 1 and ranks.rank == 1:
                log_probs.register_hook(lambda gradient: gradient * float("inf"))
            return plain(log_probs, batch)

        engine._objective = poisoned
        return refused(engine, ranks.rank)


def summed_gradient(config: RunConfig, ranks: Ranks) -> dict[str, Any]:
    """Step with gradients whose norms are finite, and whose sum is not."""
    with made(config, ranks) as engine:
        for parameter in engine.parameters.values():
            parameter.register_hook(lambda gradient: gradient * float("inf"))
        return refused(engine, ranks.rank)


def scale_of_one_bit(engine: Engine) -> None:
    engine.loss_scale.value = 2.0


def overflow(config: RunConfig, ranks: Ranks) -> dict[str, Any]:
    """Step with a scale of 65536 that overflows above 16384, and without any."""
    dropped: dict[str, list[float]] = {"scaled": [], "plain": []}
    asked = []
    with made(config, ranks) as engine:
        engine.loss_scale.value = 65536.0
        plain = engine._objective

        def overflowing(log_probs: torch.Tensor, batch: MicroBatch) -> Summed:
            dropped["scaled"].append(float(torch.rand(())))
            if engine.loss_scale.value > 16384 and engine._pass == 0 and ranks.rank == 0:
                log_probs.register_hook(lambda gradient: gradient * float("inf"))
            return plain(log_probs, batch)

        engine._objective = overflowing
        torch.manual_seed(ranks.rank)
        outcome = engine.step(
            batches(ranks.rank), TOKENS, RATE, lambda: asked.append(1) is not None
        )
        assert outcome is not None
        scaled, scale = weights(engine), engine.loss_scale.value
    with made(config, ranks) as engine:

        def noting(log_probs: torch.Tensor, batch: MicroBatch) -> Summed:
            dropped["plain"].append(float(torch.rand(())))
            return plain(log_probs, batch)

        engine._objective = noting
        torch.manual_seed(ranks.rank)
        expected = engine.step(batches(ranks.rank), TOKENS, RATE, lambda: False)
        assert expected is not None
        apart = max(float((scaled[n] - w).abs().max()) for n, w in weights(engine).items())
    return {
        "scale": scale,
        "stops_asked": len(asked),
        "loss": outcome.loss,
        "norm": outcome.grad_norm,
        "plain_loss": expected.loss,
        "plain_norm": expected.grad_norm,
        "apart": apart,
        "dropped": dropped["scaled"][-2:],
        "plain_dropped": dropped["plain"],
    }


def chunks(config: RunConfig, ranks: Ranks) -> dict[str, Any]:
    """Step with the logits in chunks, of which the ranks have unlike numbers, and in one."""
    outcomes, ended = [], []
    for positions in (3, 1000):
        with made(config, ranks) as engine:
            engine.deepspeed.module.head._chunk = positions
            outcome = engine.step(batches(ranks.rank), TOKENS, RATE, lambda: False)
            assert outcome is not None
            outcomes.append(outcome)
            ended.append(weights(engine))
    return {
        "losses": [outcome.loss for outcome in outcomes],
        "norms": [outcome.grad_norm for outcome in outcomes],
        "apart": max(float((ended[0][n] - w).abs().max()) for n, w in ended[1].items()),
    }


def stop(config: RunConfig, ranks: Ranks) -> dict[str, Any]:
    answers = iter([False, True])
    with made(config, ranks) as engine:
        before = weights(engine)
        outcome = engine.step(batches(ranks.rank), TOKENS, RATE, lambda: next(answers))
        return {"outcome": outcome, "unchanged": same(engine, before)}


def deterministic(config: RunConfig, ranks: Ranks) -> dict[str, bool]:
    """Tell whether torch is held to deterministic kernels, by what the recipe asks for."""
    found = {}
    for asked in (True, False):
        training = config.recipe.training.model_copy(update={"deterministic": asked})
        recipe = config.recipe.model_copy(update={"training": training})
        with made(config.model_copy(update={"recipe": recipe}), ranks):
            found[str(asked)] = torch.are_deterministic_algorithms_enabled()
    return found


def unused(config: RunConfig, ranks: Ranks) -> dict[str, Any]:
    """Step a model that reads one layer's weight past its adapter."""
    with made(config, ranks) as engine:
        projection = next(m for n, m in engine.deepspeed.named_modules() if n.endswith(UNUSED))
        projection.forward = lambda hidden: projection.base_layer(hidden)
        before = weights(engine)
        try:
            engine.step(batches(ranks.rank), TOKENS, RATE, lambda: False)
        except Failure as failure:
            return {
                "reason": failure.reason,
                "message": failure.message,
                "unchanged": same(engine, before),
            }
    return {}


def loss_sum(config: RunConfig, ranks: Ranks) -> dict[str, Any]:
    with made(config, ranks) as engine:
        summed = ranks.sum(engine.loss_sum(batches(ranks.rank)))
        keeps_graph = any(p.grad is not None for p in engine.parameters.values())
        outcome = engine.step(batches(ranks.rank), TOKENS, RATE, lambda: False)
        assert outcome is not None
        return {"summed": summed, "stepped": outcome.loss * TOKENS, "keeps_graph": keeps_graph}


def step_with_faults(ranks: Ranks, directory: Path) -> None:
    """Step the RunConfigs of `cases.json`; write what was seen to `seen-<rank>.json`."""
    prepare_deepspeed(ranks)
    seen = {}
    for name, document in json.loads((directory / "cases.json").read_text()).items():
        config = RunConfig.model_validate_json(document)
        seen[name] = {
            "loss": not_finite_loss(config, ranks),
            "gradient": not_finite_gradient(config, ranks),
            "summed gradient": summed_gradient(config, ranks),
            "overflow": overflow(config, ranks),
            "endless overflow": not_finite_gradient(config, ranks, scale_of_one_bit),
            "chunks": chunks(config, ranks),
            "stop": stop(config, ranks),
            "deterministic": deterministic(config, ranks),
            "unused": unused(config, ranks),
            "loss sum": loss_sum(config, ranks),
        }
    (directory / f"seen-{ranks.rank}.json").write_text(json.dumps(seen))
