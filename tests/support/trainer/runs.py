"""RunConfigs for tests, and process groups that train several of them one after the other."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_contract.runconfig import VERSION, RunConfig
from support.services.loopback import free_port

if TYPE_CHECKING:
    from support.trainer.fork_server import ForkServer

ROOT = Path(__file__).parents[3]
PYTHONPATH = os.pathsep.join((str(ROOT / "trainer_image"), str(ROOT / "tests")))


def run_config(
    directory: Path,
    *,
    model: Path | str | None = None,
    data: Path | str | None = None,
    output: str | None = None,
    training: Mapping[str, Any] | None = None,
    lora: Mapping[str, Any] | None = None,
    grpo: Mapping[str, Any] | None = None,
    **layout: Any,
) -> RunConfig:
    """Return a fp32 RunConfig whose inputs and output are below a directory unless given.

    With `grpo` its method is GRPO.
    """
    return RunConfig.model_validate(
        {
            "version": VERSION,
            "recipe": {
                **({} if grpo is None else {"method": "GRPO", "grpo": dict(grpo)}),
                "model": {"uri": _uri(model or directory / "model")},
                "data": {"train": [{"uri": _uri(data or directory / "train.jsonl")}]},
                "lora": {"rank": 4, "alpha": 8, **(lora or {})},
                "training": {
                    "globalBatchSize": 8,
                    "sequenceLength": 256,
                    "precision": "FP32",
                    **(training or {}),
                },
            },
            "layout": {
                "job": {"name": "tiny", "namespace": "tests", "uid": "uid-1"},
                "attempt": 1,
                "image": "none",
                "outputUri": output or _uri(directory / "out"),
                "scratchDir": str(directory / "scratch"),
                **layout,
            },
        }
    )


@dataclass(frozen=True)
class Trained:
    """What a case did: per-step loss and norm before clipping, and where its files are."""

    losses: list[float]
    norms: list[float]
    directory: Path

    def tensors(self, name: str) -> dict[str, Any]:
        """Return a safetensors file that rank 0 left, such as `adapter` or `logits`."""
        from safetensors.torch import load_file

        return load_file(self.directory / f"{name}.safetensors")


def train_group(
    server: ForkServer, world: int, cases: Mapping[str, RunConfig], directory: Path
) -> dict[str, Trained]:
    """Train the cases on a group of `world` processes and return what each did."""
    directory.mkdir(parents=True)
    for config in cases.values():
        Path(config.layout.scratch_dir).mkdir(parents=True, exist_ok=True)
    documents = {name: config.to_json() for name, config in cases.items()}
    (directory / "cases.json").write_text(json.dumps(documents))
    server.call(train_cases, world, directory)
    trained = {}
    for name in cases:
        steps = json.loads((directory / name / "steps.json").read_text())
        trained[name] = Trained(steps["losses"], steps["norms"], directory / name)
    return trained


def rank_environments(world: int = 1) -> list[dict[str, str]]:
    """Return what the ranks of a new process group on this machine find each other by."""
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world)}
    return [{**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]


def _uri(place: Path | str) -> str:
    return place.as_uri() if isinstance(place, Path) else place


def train_cases(ranks: Any, directory: Path) -> None:
    """Train, on each rank, the cases that `cases.json` holds."""
    for name, document in json.loads((directory / "cases.json").read_text()).items():
        target = directory / name
        target.mkdir(exist_ok=True)
        _train_case(RunConfig.model_validate_json(document), ranks, target)


def _train_case(config: RunConfig, ranks: Any, target: Path) -> None:
    """Do what train_and_publish does, and keep what it forgets: every step, the last logits."""
    import torch
    from safetensors.torch import save_file

    from finetune_trainer.course.progress import Reporter
    from finetune_trainer.course.telemetry import StepRecord, Telemetry
    from finetune_trainer.fit.resolve import resolve
    from finetune_trainer.lead import Lead, begin, fetch
    from finetune_trainer.methods.registry import method_of
    from finetune_trainer.prepare import prepare
    from finetune_trainer.train import load, train
    from support.trainer.parts import run_of

    losses: list[float] = []
    norms: list[float] = []

    class Recorder(Reporter):
        def trained(self, record: StepRecord) -> None:
            losses.append(record.loss)
            norms.append(record.grad_norm)
            super().trained(record)

    reporter, method = Recorder(), method_of(config.recipe.method)
    run = run_of(config, ranks, reporter)
    start = ranks.lead(lambda: begin(config, reporter))
    directory = fetch(config, start.model, reporter, weights=False)
    with method.opened(run) as learning:
        resolved = resolve(run, start.model, directory, learning.wish)
        form = method.form(config.recipe)
        data = prepare(run, form, directory, start.files, start.eval_files)
        lead = ranks.hold(lambda: Lead(config, reporter, start, Telemetry(config, {})))
        engine, model = load(resolved, start.model, learning.objective)
        feed = learning.feed(resolved, engine, model, data.train, directory)
        summary = train(resolved, engine, data, feed, lead)
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(data.train.row(0).tokens).long()[None]).logits
    with engine.gathered():
        lead.ask(lambda lead: lead.publish(model, summary))
        if ranks.is_lead:
            adapter = {n: p.clone() for n, p in model.named_parameters() if p.requires_grad}
            save_file(adapter, target / "adapter.safetensors")
            save_file({"logits": logits}, target / "logits.safetensors")
            steps = {"losses": losses, "norms": norms, "tokens": summary.supervised_tokens}
            (target / "steps.json").write_text(json.dumps(steps))
