"""Process groups that draw completions with the built-in engine, case after case."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune_contract.runconfig import RunConfig
from support.trainer.fork_server import ForkServer
from support.trainer.runs import run_config

SEED = 11
PROMPTS = (5, 23, 1, 9, 9, 14, 3)  # tokens
SAMPLES = (3, 2, 4, 3, 3, 1, 2)
GAIN = 0.2  # of the random adapter


@dataclass(frozen=True)
class Told:
    """What a rank saw.

    `drawn` is by request and sample, as in "3/0"; `later` is drawn again after an optimizer step;
    `losses` are of that step and one after it. `untouched` tells whether drawing left weights and
    mode alone, `stopped` whether a stop made it give up. `failed` is the reason and the rank that
    it ended with when the last rank's logits were no numbers.
    """

    drawn: dict[str, list[int]]
    later: dict[str, list[int]]
    done: int
    losses: list[float]
    untouched: bool
    stopped: bool
    failed: list[Any]


def rollout_config(
    directory: Path,
    *,
    sampling: Mapping[str, Any] | None = None,
    rollout: Mapping[str, Any] | None = None,
    **options: Any,
) -> RunConfig:
    """Return a resolved RunConfig of GRPO; `options` are of `run_config`."""
    layout: dict[str, Any] = {
        "zeroStage": 0,
        "microBatchSize": 1,
        "gradientCheckpointing": "Never",
        **({"rollout": dict(rollout)} if rollout else {}),
    }
    training = {"seed": SEED, "globalBatchSize": 4, **options.pop("training", {})}
    plain = run_config(directory, training=training, **layout | options)
    document = plain.model_dump(by_alias=True)
    document["recipe"] |= {
        "method": "GRPO",
        "grpo": {
            "groupSize": 2,
            "sampling": {"maxTokens": 12, **(sampling or {})},
            "rewards": [{"name": "same", "exact": {}}],
        },
    }
    return RunConfig.model_validate(document)


@contextmanager
def engine_of(config: RunConfig, ranks: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the training engine and the PEFT model in it, its adapter away from zero."""
    import torch
    from deepspeed.utils import groups

    from finetune_trainer.adapter.load import load_adapted
    from finetune_trainer.step.engine import Engine
    from finetune_trainer.step.sharding import prepare_deepspeed, sharded_loading
    from support.trainer.oracle import path_of
    from support.trainer.parts import objective_of, resolved_run

    groups._WORLD_GROUP = None  # DeepSpeed's own copy of the group of an earlier test
    prepare_deepspeed(ranks)
    run = resolved_run(config, ranks)
    with sharded_loading(run):
        model = load_adapted(config.recipe, path_of(config.recipe.model.uri)).model
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    noise = torch.randn(parameter.shape, generator=draw)
                    parameter.add_(noise.to(parameter), alpha=GAIN)
        engine = Engine(model, objective_of(config.recipe), run)
    yield engine, model
    engine.deepspeed.destroy()


def requests() -> list[Any]:
    """Return requests of unlike prompts and groups."""
    import numpy as np

    from finetune_trainer.rollout.base import Request

    draw = np.random.default_rng(4)
    return [
        Request(draw.integers(5, 250, length).astype(np.int32), (0, index, 0), samples)
        for index, (length, samples) in enumerate(zip(PROMPTS, SAMPLES, strict=True))
    ]


def rollouts(config: RunConfig, engine: Any, model: Any, ranks: Any, **run: Any) -> Any:
    """Return the rollout engine of a config, on what `engine_of` yields."""
    from finetune_trainer.model.tokenizer import load_tokenizer
    from finetune_trainer.rollout import rollout_engine
    from support.trainer.oracle import path_of
    from support.trainer.parts import resolved_run

    assert config.recipe.grpo is not None
    tokenizer = load_tokenizer(path_of(config.recipe.model.uri))
    resolved = resolved_run(config, ranks, **run)
    return rollout_engine(resolved, config.recipe.grpo.sampling, engine, model, tokenizer)


def draw_group(
    server: ForkServer, world: int, cases: Mapping[str, RunConfig], directory: Path
) -> dict[str, list[Told]]:
    """Draw each case's completions with `world` processes; return what each rank saw."""
    directory.mkdir(parents=True)
    documents = {name: config.to_json() for name, config in cases.items()}
    (directory / "cases.json").write_text(json.dumps(documents))
    server.call(draw_cases, world, directory)
    return {
        name: [
            Told(**json.loads((directory / f"{name}-{rank}.json").read_text()))
            for rank in range(world)
        ]
        for name in cases
    }


def _case(config: RunConfig, ranks: Any) -> Told:
    import torch

    mine = requests() if ranks.world == 1 else _share(ranks.rank)
    done: list[int] = []
    with engine_of(config, ranks) as (engine, model):
        drawer = rollouts(config, engine, model, ranks)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        first = drawer.draw(mine, 0, lambda: False, done.append)
        untouched = model.training and all(
            torch.equal(before[name], p) for name, p in model.named_parameters()
        )
        losses = [_step(engine, config)]
        later = drawer.draw(mine, 1, lambda: False, lambda _: None)
        losses.append(_step(engine, config))
        stopped = drawer.draw(mine, 2, lambda: True, lambda _: None)
        failed = _failed(drawer, model, mine, ranks)
    assert first is not None
    assert later is not None
    return Told(
        drawn=_tokens(mine, first),
        later=_tokens(mine, later),
        done=sum(done),
        losses=losses,
        untouched=untouched,
        stopped=stopped is None,
        failed=failed,
    )


def _failed(drawer: Any, model: Any, asked: Sequence[Any], ranks: Any) -> list[Any]:
    from finetune_trainer.process.errors import Failure

    head = model.get_base_model().get_output_embeddings()
    if ranks.rank == ranks.world - 1:
        head.register_forward_hook(lambda module, inputs, logits: logits * float("nan"))
    try:
        # As the training does, which goes on with what all have drawn.
        ranks.everywhere(lambda: drawer.draw(asked, 3, lambda: False, lambda _: None))
    except Failure as failure:
        return [failure.reason, failure.rank]
    return []


def _share(rank: int) -> list[Any]:
    """Return what one of two ranks draws: the last samples of a group, or far more."""
    from dataclasses import replace

    split = requests()[3]
    if rank:
        return [replace(split, first=1, samples=split.samples - 1)]
    others = [request for request in requests() if request.key != split.key]
    return [*others, replace(split, samples=1)]


def _tokens(asked: Sequence[Any], groups: Sequence[Sequence[Any]]) -> dict[str, list[int]]:
    return {
        f"{request.key[1]}/{request.first + index}": completion.tokens.tolist()
        for request, group in zip(asked, groups, strict=True)
        for index, completion in enumerate(group)
    }


def _step(engine: Any, config: RunConfig) -> float:
    """Do an optimizer step on the four rows of a fixed batch; return its loss."""
    from dataclasses import replace

    import numpy as np
    import torch

    from finetune_trainer.batch.micro_batch import PolicyTerms
    from finetune_trainer.methods.grpo.groups import Group, group_batch

    draw = np.random.default_rng(2)
    rows = [draw.integers(5, 250, (2, 6)).astype(np.int32) for _ in range(4)]
    world, packs = config.layout.world_size, engine.deepspeed.module.packs
    batches = []
    for index, (prompt, tokens) in enumerate(rows):
        if index % world != engine._ranks.rank:
            continue
        batch = group_batch([Group(prompt, (tokens,))], engine._ranks.device, packed=packs)
        terms = PolicyTerms(
            advantages=torch.full((6,), 1.0 - index),
            behaviour=torch.zeros(6),
            reference=torch.zeros(6),
            completions=torch.zeros(6, dtype=torch.int64),
            lengths=torch.tensor([6.0]),
        )
        batches.append(replace(batch, policy=replace(terms, behaviour=torch.full((6,), -5.0))))
    outcome = engine.step(batches, 24.0, 0.05, lambda: False)
    assert outcome is not None
    loss: float = outcome.loss
    return loss


def draw_cases(ranks: Any, directory: Path) -> None:
    """Draw, on each rank, the cases of `cases.json`; write of each what `Told` tells."""
    for name, document in json.loads((directory / "cases.json").read_text()).items():
        told = _case(RunConfig.model_validate_json(document), ranks)
        (directory / f"{name}-{ranks.rank}.json").write_text(json.dumps(asdict(told)))
