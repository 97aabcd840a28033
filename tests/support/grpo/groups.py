"""Process groups that do GRPO's optimizer steps on fixed rollouts, case after case."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from finetune_contract.runconfig import RunConfig
from support.grpo.fixed_rollouts import ITERATIONS, Buffer, Fixed, read
from support.trainer.fork_server import ForkServer
from support.trainer.oracle import path_of


@dataclass(frozen=True)
class Stepped:
    """Per step the loss, the norm before clipping and the stats; where the adapter lies."""

    losses: list[float]
    norms: list[float]
    stats: list[dict[str, float]]
    directory: Path

    def adapter(self) -> dict[str, Any]:
        """Return the final adapter by name."""
        from safetensors.torch import load_file

        return load_file(self.directory / "adapter.safetensors")


@dataclass(frozen=True)
class Apart:
    """How far shared prompts are from prompts of their own, on weights that have been trained.

    As shares: of the largest log-probability, and of the norm; `gradients` is the norm of each
    parameter's difference over its norm, the largest; `reached` how many have a gradient.
    """

    log_probs: float
    gradients: float
    norms: float
    reached: int


def step_group(
    server: ForkServer, world: int, cases: Mapping[str, tuple[RunConfig, Path]], directory: Path
) -> dict[str, tuple[Stepped, Apart | None]]:
    """Do the steps of each RunConfig on its rollouts, with `world` processes.

    Where rows are packed, tell also how far that is from prompts of their own.
    """
    directory.mkdir(parents=True)
    documents = {name: [config.to_json(), str(path)] for name, (config, path) in cases.items()}
    (directory / "cases.json").write_text(json.dumps(documents))
    server.call(step_cases, world, directory)
    found = {}
    for name in cases:
        told = json.loads((directory / name / "told.json").read_text())
        apart = Apart(**told.pop("apart")) if told["apart"] else told.pop("apart")
        found[name] = Stepped(**told, directory=directory / name), apart
    return found


def micro_batches(buffer: Buffer, config: RunConfig, rank: int, *, packed: bool) -> list[Any]:
    """Return a rank's micro-batches: completions are dealt in order, groups split where need be."""
    size, world = config.layout.micro_batch_size or 1, config.layout.world_size
    starts = range(rank * size, len(buffer), world * size)
    return [_micro_batch([c for c in buffer[i : i + size] if c.kept], packed) for i in starts]


def _micro_batch(completions: list[Fixed], packed: bool) -> Any:
    import numpy as np
    import torch

    from finetune_trainer.batch.micro_batch import MicroBatch, PolicyTerms
    from finetune_trainer.methods.grpo.groups import Group, group_batch

    cpu = torch.device("cpu")
    if not completions:
        return MicroBatch.idle(cpu, packed=packed)
    groups = []
    for _, found in groupby(completions, key=lambda c: c.group):
        own = list(found)
        prompt, *tokens = (
            np.array(t, dtype=np.int32) for t in [own[0].prompt, *(c.tokens for c in own)]
        )
        groups.append(Group(prompt, tuple(tokens)))
    lengths = torch.tensor([len(c.tokens) for c in completions])
    terms = PolicyTerms(
        advantages=torch.tensor([c.advantage for c in completions]).repeat_interleave(lengths),
        behaviour=torch.tensor([value for c in completions for value in c.then]),
        reference=torch.tensor([value for c in completions for value in c.reference]),
        completions=torch.arange(len(completions)).repeat_interleave(lengths),
        lengths=lengths.float(),
    )
    return replace(group_batch(groups, cpu, packed=packed), policy=terms)


def _normaliser(buffer: Buffer, config: RunConfig) -> float:
    from finetune_trainer.methods.grpo.losses import normaliser

    kept = [c for c in buffer if c.kept]
    assert config.recipe.grpo is not None
    return normaliser(len(kept), sum(len(c.tokens) for c in kept), config.recipe.grpo)


@contextmanager
def _engine(config: RunConfig, ranks: Any) -> Iterator[Any]:
    from finetune_trainer.adapter.load import load_adapted
    from finetune_trainer.step.engine import Engine
    from finetune_trainer.step.sharding import sharded_loading
    from support.trainer.parts import objective_of, resolved_run

    run = resolved_run(config, ranks)
    with sharded_loading(run):
        model = load_adapted(config.recipe, path_of(config.recipe.model.uri)).model
        engine = Engine(model, objective_of(config.recipe), run)
    yield engine
    engine.deepspeed.destroy()


def _step_case(config: RunConfig, buffers: list[Buffer], ranks: Any, target: Path) -> None:
    from safetensors.torch import save_file

    rate = config.recipe.training.learning_rate
    outcomes, apart = [], None
    with _engine(config, ranks) as engine:
        for buffer in buffers:
            batches = micro_batches(buffer, config, ranks.rank, packed=config.layout.packing)
            for _ in range(ITERATIONS):
                by = _normaliser(buffer, config)
                outcomes.append(engine.step(batches, by, rate, lambda: False))
        with engine.gathered():
            weights = {n: p.detach().clone() for n, p in engine.parameters.items()}
        if config.layout.packing:
            apart = _apart(engine, config, buffers[0], ranks)
    if ranks.is_lead:
        save_file(weights, target / "adapter.safetensors")
        told = {
            "losses": [outcome.loss for outcome in outcomes],
            "norms": [outcome.grad_norm for outcome in outcomes],
            "stats": [outcome.stats for outcome in outcomes],
            "apart": asdict(apart) if apart else None,
        }
        (target / "told.json").write_text(json.dumps(told))


def _apart(engine: Any, config: RunConfig, buffer: Buffer, ranks: Any) -> Apart:
    """Compare by a step of rate 0 either way, after which the weights are the same."""
    import torch

    from finetune_trainer.step.log_probs import score

    gradients: dict[str, torch.Tensor] = {}

    def add(name: str, gradient: torch.Tensor) -> None:
        gradients[name] = gradients.get(name, 0) + gradient.detach()

    for name, parameter in engine.parameters.items():
        parameter.register_hook(lambda gradient, name=name: add(name, gradient))
    by = _normaliser(buffer, config)
    found = []
    for packed in (True, False):
        batches = micro_batches(buffer, config, ranks.rank, packed=packed)
        with torch.no_grad():
            scored = torch.cat([score(engine.deepspeed, batch) for batch in batches])
        gradients.clear()
        outcome = engine.step(batches, by, 0.0, lambda: False)
        summed = {n: ranks.gather(gradients[n]).sum(0) for n in engine.parameters}
        found.append((scored, summed, outcome.grad_norm))
    (scores, slopes, norm), (own_scores, own_slopes, own_norm) = found
    share = (scores - own_scores).abs().max() / own_scores.abs().max()
    return Apart(
        log_probs=max(ranks.gather(share).tolist()),
        gradients=max(float((slopes[n] - g).norm() / g.norm()) for n, g in own_slopes.items()),
        norms=abs(norm / own_norm - 1),
        reached=sum(bool(g.norm() > 0) for g in own_slopes.values()),
    )


def step_cases(ranks: Any, directory: Path) -> None:
    """Step, on each rank, the cases of `cases.json`; write what `Stepped` and `Apart` tell."""
    from finetune_trainer.step.sharding import prepare_deepspeed

    prepare_deepspeed(ranks)
    for name, (document, rollouts) in json.loads((directory / "cases.json").read_text()).items():
        target = directory / name
        target.mkdir(exist_ok=True)
        _step_case(RunConfig.model_validate_json(document), read(Path(rollouts)), ranks, target)
