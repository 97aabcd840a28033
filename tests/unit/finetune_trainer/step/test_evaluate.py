"""The eval loss is a mean over tokens under every layout; it chooses what is published and when."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.artifact import Manifest
from finetune_contract.progress import Phase
from finetune_contract.reasons import Reason, exit_code
from finetune_contract.runconfig import RunConfig
from support.models.tiny_llama import dialogue, sums, write_model, write_rows
from support.storage.publications import run_directory
from support.trainer.fork_server import Ended, Fault, ForkServer
from support.trainer.runs import run_config

STEPS, EVERY = 8, 2


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inputs")
    write_model(directory / "model")
    write_rows(directory / "train.jsonl", sums(16))
    # Answers of very unequal length: a mean over rows or micro-batches would be another number.
    rows = [dialogue(f"{i} * 3 = ?", "!" * (1 + i * i)) for i in range(7)]
    write_rows(directory / "eval.jsonl", rows)
    return directory


def config(inputs: Path, output: Path, **changes: Any) -> RunConfig:
    """Return a run whose eval loss falls at first and, at this rate, rises later."""
    base = run_config(
        inputs,
        output=output.as_uri(),
        training={"maxSteps": STEPS, "learningRate": changes.pop("rate", 0.05), "warmupRatio": 0},
        attempt=changes.pop("attempt", 1),
        processesPerWorker=changes.pop("world", 2),
        microBatchSize=2,
        zeroStage=changes.pop("stage", 2),
        checkpoint={"everySteps": 1, "everyMinutes": None, "keep": 100},
        scratchDir=str(output / "scratch"),
    )
    fields = json.loads(base.to_json())
    fields["recipe"]["data"]["eval"] = [{"uri": (inputs / "eval.jsonl").as_uri()}]
    fields["recipe"]["eval"] = {"everySteps": EVERY, **changes}
    return RunConfig.model_validate(fields)


@dataclass(frozen=True)
class Outcome:
    """What a finished run left."""

    losses: dict[int, float]  # eval losses by step
    manifest: Manifest
    directory: Path  # of the artifact

    def adapter(self) -> bytes:
        return (self.directory / "adapter_model.safetensors").read_bytes()


def outcome(ends: list[Ended], output: Path, attempt: int = 1) -> Outcome:
    assert [end.code for end in ends] == [0] * len(ends), ends[0].log
    directory = run_directory(output, attempt) / "artifact"
    records = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    losses = {record["step"]: record["eval_loss"] for record in records if "eval_loss" in record}
    manifest = Manifest.model_validate_json((directory / "manifest.json").read_text())
    return Outcome(losses, manifest, directory)


@pytest.fixture(scope="module")
def best(
    server: ForkServer, inputs: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Outcome, Path]:
    output = tmp_path_factory.mktemp("best")
    made = config(inputs, output, publish="Best")
    return outcome(server.run(made, output / "attempt-1"), output), output


def plain_loss(inputs: Path, adapter: Path) -> float:
    """Evaluate a published adapter without any of the project's code, one row at a time."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(inputs / "model")
    base = AutoModelForCausalLM.from_pretrained(inputs / "model", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter)
    summed, count = 0.0, 0
    for line in (inputs / "eval.jsonl").read_text().splitlines():
        messages = json.loads(line)["messages"]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        prompt = tokenizer.apply_chat_template(
            messages[:1], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        start = len(tokenizer(prompt, add_special_tokens=False).input_ids)
        end = ids.shape[1] - 1  # the line break after the turn's end is not learned
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, start - 1 : end - 1]
        summed += torch.nn.functional.cross_entropy(
            logits, ids[0, start:end], reduction="sum"
        ).item()
        count += end - start
    return summed / count


def test_the_loss_is_that_of_a_plain_computation(best: tuple[Outcome, Path], inputs: Path) -> None:
    found, _ = best
    assert list(found.losses) == [2, 4, 6, 8]
    summary = found.manifest.training
    assert summary.eval_loss == found.losses[summary.published_step]
    assert plain_loss(inputs, found.directory) == pytest.approx(summary.eval_loss, rel=1e-5)


def test_best_publishes_the_step_of_the_lowest_loss(best: tuple[Outcome, Path]) -> None:
    from safetensors.torch import load_file

    found, output = best
    lowest = min(found.losses, key=lambda step: found.losses[step])
    summary = found.manifest.training
    assert (summary.steps, summary.published_step, summary.stopped_early) == (STEPS, lowest, False)
    assert lowest < STEPS, "the rate is meant to be too high"
    saved = load_file(run_directory(output) / f"checkpoints/{lowest:08d}/state.safetensors")
    weights = {
        name.removeprefix("weight.").replace(".default", ""): tensor
        for name, tensor in saved.items()
        if name.startswith("weight.")
    }
    published = load_file(found.directory / "adapter_model.safetensors")
    assert published.keys() == weights.keys()
    assert all(published[name].equal(weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("world", "stage"), [(1, 0), pytest.param(2, 3, marks=pytest.mark.slow)], ids=["1", "zero3"]
)
def test_layouts_agree(
    server: ForkServer,
    inputs: Path,
    best: tuple[Outcome, Path],
    tmp_path: Path,
    world: int,
    stage: int,
) -> None:
    made = config(inputs, tmp_path, publish="Best", world=world, stage=stage)
    found = outcome(server.run(made, tmp_path / "attempt-1"), tmp_path)
    assert found.losses == pytest.approx(best[0].losses, rel=1e-5)
    assert found.manifest.training.published_step == best[0].manifest.training.published_step


def test_a_stop_during_evaluation_loses_no_step_and_no_best(
    server: ForkServer, inputs: Path, best: tuple[Outcome, Path], tmp_path: Path
) -> None:
    """Also stops where evaluations fail to gain, and begins again with what was counted before."""
    whole, _ = best
    lowest = whole.manifest.training.published_step
    stopped_at = lowest + EVERY
    fault = Fault(int(signal.SIGTERM), stopped_at, (1,), at="evaluate")
    made = config(inputs, tmp_path, publish="Best")
    ends = server.run(made, tmp_path / "attempt-1", fault)
    assert {end.code for end in ends} == {exit_code(Reason.INTERRUPTED)}
    for end in ends:
        assert end.result is not None
        assert end.result.step == stopped_at
        assert end.result.checkpoint is not None
        assert end.result.checkpoint.step == stopped_at
    again = config(inputs, tmp_path, publish="Best", attempt=2)
    found = outcome(server.run(again, tmp_path / "attempt-2"), tmp_path, 2)
    assert found.losses == whole.losses
    assert found.adapter() == whole.adapter()
    assert found.manifest.training == whole.manifest.training


def test_patience_ends_the_training_also_across_a_kill(
    server: ForkServer, inputs: Path, best: tuple[Outcome, Path], tmp_path: Path
) -> None:
    whole, _ = best
    lowest = whole.manifest.training.published_step
    made = config(inputs, tmp_path, publish="Last", patience=1)
    fault = Fault(int(signal.SIGKILL), lowest + EVERY, (0, 1))
    server.run(made, tmp_path / "attempt-1", fault)
    again = config(inputs, tmp_path, publish="Last", patience=1, attempt=2)
    found = outcome(server.run(again, tmp_path / "attempt-2"), tmp_path, 2)
    summary = found.manifest.training
    assert summary.stopped_early
    assert summary.steps == summary.published_step == lowest + EVERY
    assert summary.eval_loss == found.losses[summary.steps] == whole.losses[summary.steps]


def test_without_every_steps_the_end_is_evaluated(
    server: ForkServer, inputs: Path, best: tuple[Outcome, Path], tmp_path: Path
) -> None:
    made = config(inputs, tmp_path, everySteps=None, world=1, stage=0)
    ends = server.run(made, tmp_path / "attempt-1")
    found = outcome(ends, tmp_path)
    assert list(found.losses) == [STEPS]
    assert found.losses[STEPS] == pytest.approx(best[0].losses[STEPS], rel=1e-5)
    assert f"phase {Phase.EVALUATE}, 7 in all" in ends[0].log


def test_an_eval_loss_that_is_not_finite_ends_the_run(
    server: ForkServer, inputs: Path, tmp_path: Path
) -> None:
    made = config(inputs, tmp_path, world=1, stage=0)
    fields = json.loads(made.to_json())
    fields["recipe"]["training"] |= {"optimizer": "SGD", "learningRate": 1e38, "maxGradNorm": 0}
    fields["recipe"]["eval"] = {"everySteps": 1}
    [end] = server.run(RunConfig.model_validate(fields), tmp_path / "attempt-1")
    assert end.result is not None
    assert end.result.reason is Reason.NON_FINITE_LOSS
    assert (end.result.step, end.result.message) == (1, "the eval loss after step 1 is not finite")
