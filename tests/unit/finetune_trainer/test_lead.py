"""What is wrong is found before what is expensive: no weights are fetched for a refused run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_contract.checkpoint import TrainingState
from finetune_contract.progress import Phase, Progress
from finetune_contract.reasons import Reason
from finetune_contract.runconfig import RunConfig
from finetune_trainer.checkpoints.snapshot import Snapshot
from finetune_trainer.course.progress import Reporter
from finetune_trainer.course.telemetry import Telemetry
from finetune_trainer.data.encoding import Form
from finetune_trainer.fit.resolve import resolve
from finetune_trainer.lead import Lead, begin, fetch
from finetune_trainer.prepare import Prepared, prepare
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.errors import Failure
from finetune_trainer.step.optimizer_state import Moments
from support.models.tiny_llama import dialogue, sums, write_model, write_rows
from support.services.hub import COMMIT, Hub, hub_server
from support.trainer.parts import run_of
from support.trainer.runs import run_config


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    directory = write_model(tmp_path_factory.mktemp("model"))
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def hub(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server() as hub:
        hub.files = {"models/org/name": dict(files)}
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def weights_fetched(directory: Path) -> bool:
    """Tell whether a weights file is on disk; their headers alone are read before."""
    return any((directory / "cache").rglob("*.safetensors"))


def config(directory: Path, rows: list[Any], **recipe: Any) -> RunConfig:
    return run_config(
        directory,
        model="hf://org/name",
        data=write_rows(directory / "train.jsonl", rows),
        cacheDir=str(directory / "cache"),
        **recipe,
    )


def read_data(config: RunConfig, ranks: Ranks, reporter: Reporter) -> Prepared:
    """Do what a run does before it fetches weights."""
    run, start = run_of(config, ranks, reporter), begin(config, reporter)
    directory = fetch(config, start.model, reporter, weights=False)
    resolve(run, start.model, directory, lambda wish: wish)
    return prepare(run, Form(config.recipe.training.sequence_length), directory, start.files)


def test_good_inputs_become_a_dataset_without_weights(
    hub: Hub, tmp_path: Path, alone: Ranks
) -> None:
    job, reporter = config(tmp_path, sums(5)), Reporter()
    start = begin(job, reporter)
    assert start.finished is None
    assert start.model.identity.revision == COMMIT
    assert len(read_data(job, alone, reporter).train) == 5
    assert (reporter.latest.phase, reporter.latest.done, reporter.latest.total) == (
        Phase.PREPARE,
        5,
        5,
    )
    assert not weights_fetched(tmp_path)
    directory = fetch(job, start.model, reporter, weights=True)
    assert weights_fetched(tmp_path)
    assert directory.is_relative_to(tmp_path / "cache")
    assert reporter.latest.done == reporter.latest.total
    assert reporter.latest.total == sum(f.size for f in start.model.files)


@pytest.mark.parametrize("trouble", ["row", "length", "architecture", "no template"])
def test_no_weights_are_fetched_for_what_is_refused(
    hub: Hub, files: dict[str, bytes], tmp_path: Path, alone: Ranks, trouble: str
) -> None:
    rows, length, reason = sums(3), 256, Reason.MODEL_UNSUPPORTED
    match trouble:
        case "row":
            rows, reason = [*rows, dialogue("no answer")], Reason.DATA_INVALID
        case "length":
            length, reason = 8, Reason.DATA_INVALID
        case "architecture":
            text = {**json.loads(files["config.json"]), "model_type": "mamba"}
            hub.files["models/org/name"]["config.json"] = json.dumps(text).encode()
        case _:
            del hub.files["models/org/name"]["chat_template.jinja"]
    job = config(tmp_path, rows, training={"sequenceLength": length})
    with pytest.raises(Failure) as caught:
        read_data(job, alone, Reporter())
    assert caught.value.reason is reason
    assert not weights_fetched(tmp_path)


def test_a_missing_data_file_is_found_before_the_models_files(hub: Hub, tmp_path: Path) -> None:
    job = config(tmp_path, sums(1))
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(Failure) as caught:
        begin(job, Reporter())
    assert caught.value.reason is Reason.DATA_NOT_FOUND
    assert not any("resolve" in request for request in hub.requests)


def test_a_checkpoint_that_fails_is_told_in_progress(hub: Hub, tmp_path: Path) -> None:
    reporter, output = Reporter(), tmp_path / ("x" * 200) / ("x" * 200) / ("x" * 200)
    job = config(tmp_path, sums(1), output=output.as_uri())
    Path(job.layout.scratch_dir).mkdir()
    lead = Lead(job, reporter, begin(job, reporter), Telemetry(job, {}))
    lead.resume(lambda _: True)
    state = TrainingState(step=2, supervised_tokens=1, loss=1.0)
    snapshot = Snapshot(state, {"a": torch.ones(2)}, Moments())
    blocked = output / "runs"
    blocked.write_text("a file where a directory must be")
    lead.save(snapshot)
    lead.saved()
    note = reporter.latest.note
    assert note is not None
    assert note.startswith("checkpoint of step 2 failed, training goes on: ")
    assert Progress.model_validate_json(reporter.latest.to_json()).note == note  # not too long
    reporter.noted("rewards", "waits")
    blocked.unlink()
    lead.save(snapshot)
    lead.saved()
    assert reporter.latest.note == "waits"
