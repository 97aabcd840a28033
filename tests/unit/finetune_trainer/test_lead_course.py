"""Rank 0 tells the tracker how it ended, and hands its curves from attempt to attempt."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_contract.artifact import TrainingSummary
from finetune_contract.checkpoint import TrainingState
from finetune_contract.progress import Phase
from finetune_contract.reasons import Reason
from finetune_contract.result import PublishedArtifact
from finetune_trainer.adapter.load import load_adapted
from finetune_trainer.checkpoints.snapshot import Snapshot
from finetune_trainer.course.progress import Reporter
from finetune_trainer.course.telemetry import Telemetry
from finetune_trainer.lead import Lead, begin, patiently, telling
from finetune_trainer.process.distributed import Led
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.waiting import waits
from finetune_trainer.step.optimizer_state import Moments
from finetune_trainer.store.artifacts import open_artifact
from support.storage.meddled_store import meddled
from support.storage.publications import run_directory
from support.trainer.runs import run_config


class Curves:
    """Stands in for the telemetry of an attempt."""

    run_id = "run-7"

    def __init__(self) -> None:
        self.began: dict[str, Any] = {}
        self.told: list[Any] = []

    def go_on(self, **known: Any) -> None:
        self.began = known

    def snapshot(self) -> bytes:
        return b'{"step":1}\n'

    def files(self, facts: Any) -> dict[str, Path]:
        return {}

    def close(self, reason: Reason) -> None:
        self.told.append(reason)


@pytest.fixture
def curves() -> Any:
    return Curves()


def started(
    inputs: Path,
    directory: Path,
    curves: Any = None,
    attempt: int = 1,
    reporter: Reporter | None = None,
) -> Lead:
    config = run_config(
        inputs,
        output=(directory / "out").as_uri(),
        scratchDir=str(directory / "scratch"),
        attempt=attempt,
    )
    Path(config.layout.scratch_dir).mkdir(exist_ok=True)
    telemetry = curves or Telemetry(config, {})
    return Lead(config, reporter or Reporter(), begin(config, Reporter()), telemetry)


def test_publishing_waits_for_a_store_that_is_full_and_says_so() -> None:
    artifact = PublishedArtifact(uri="file:///a", digest="sha256:0", bytes=1)
    answers: list[Failure | None] = [Failure(Reason.STORAGE_UNAVAILABLE, "full")] * 40 + [None]
    notes: list[str | None] = []
    slept: list[float] = []

    def publish() -> PublishedArtifact:
        if (answer := answers.pop(0)) is not None:
            raise answer
        return artifact

    def sleep(seconds: float) -> None:
        assert waits(), "else a run whose own bound is short would count as stalled"
        slept.append(seconds)

    assert patiently(publish, notes.append, sleep, lambda: 0.0) == artifact
    assert notes == ["publishing waits: full"] * 40 + [None]
    assert len(slept) == 40
    answers = [Failure(Reason.ACCESS_DENIED, "denied")]
    with pytest.raises(Failure, match="denied"):
        patiently(publish, notes.append, slept.append, lambda: 0.0)


def test_publishing_does_not_wait_for_ever() -> None:
    waited = 0.0

    def sleep(seconds: float) -> None:
        nonlocal waited
        waited += seconds

    def publish() -> PublishedArtifact:
        raise Failure(Reason.STORAGE_UNAVAILABLE, "full")

    with pytest.raises(Failure, match="full"):
        patiently(publish, lambda note: None, sleep, lambda: waited)
    assert waited == 1800


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, Reason.SUCCEEDED),
        (Failure(Reason.DISK_FULL, "full"), Reason.DISK_FULL),
        (MemoryError(), Reason.OUT_OF_MEMORY),
        (SystemExit(), Reason.TRAINER_ERROR),
    ],
)
def test_the_tracker_is_told_how_it_ended(
    inputs: Path, curves: Any, tmp_path: Path, error: BaseException | None, reason: Reason
) -> None:
    ranks: Any = None
    lead = Led(ranks, started(inputs, tmp_path, curves))
    with nullcontext() if error is None else pytest.raises(type(error)), telling(lead):
        if error is not None:
            raise error
    assert curves.told == [reason]


def test_what_ends_before_there_are_curves_is_not_hidden(inputs: Path, tmp_path: Path) -> None:
    ranks: Any = None
    lead = Led(ranks, started(inputs, tmp_path))
    with pytest.raises(Failure, match="full"), telling(lead):
        raise Failure(Reason.DISK_FULL, "full")


def test_a_job_begins_without_curves(inputs: Path, curves: Any, tmp_path: Path) -> None:
    lead = started(inputs, tmp_path, curves)
    assert lead.saved() is None
    lead.resume(lambda snapshot: True)
    assert curves.began == {"run_id": None, "history": b"", "step": 0}


def test_the_next_attempt_goes_on_with_curves_and_run(
    inputs: Path, curves: Any, tmp_path: Path
) -> None:
    lead = started(inputs, tmp_path, curves)
    lead.resume(lambda snapshot: True)
    state = TrainingState(step=3, supervised_tokens=9, loss=1.0)
    lead.save(Snapshot(state, {"a": torch.ones(2)}, Moments()))
    saved = lead.saved()
    assert saved is not None
    assert saved.step == 3
    started(inputs, tmp_path, curves, attempt=2).resume(lambda snapshot: True)
    assert curves.began == {"run_id": "run-7", "history": curves.snapshot(), "step": 3}


class Phases(Reporter):
    """Notes which phases begin."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[Phase] = []

    def begin(self, phase: Phase, total: int = 0) -> None:
        self.begun.append(phase)
        super().begin(phase, total)


@pytest.mark.usefixtures("scratch_alone")
def test_a_store_that_comes_back_gets_the_artifact(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, and the progress of publishing begins anew."""
    monkeypatch.setattr("finetune_trainer.lead.PAUSE_SECONDS", 0.0)
    reporter = Phases()
    lead = started(inputs, tmp_path, reporter=reporter)
    lead.resume(lambda snapshot: True)
    answers = [Failure(Reason.STORAGE_UNAVAILABLE, "full")]

    def fail_once(request: str, path: str) -> None:
        if request == "upload" and answers:
            raise answers.pop()

    lead._output = meddled(lead._output, fail_once)
    model = load_adapted(run_config(inputs).recipe, inputs / "model").model
    summary = TrainingSummary(steps=1, supervised_tokens=1, final_loss=1.0, published_step=1)
    published = lead.publish(model, summary)
    assert not answers
    assert open_artifact(published.uri, None, tmp_path / "opened").is_dir()
    assert reporter.begun == [Phase.PUBLISH] * 2


def test_an_artifact_is_made_in_the_scratch_directory_with_the_rows_left_out(
    inputs: Path, tmp_path: Path
) -> None:
    reporter = Phases()
    lead = started(inputs, tmp_path, reporter=reporter)
    lead.resume(lambda snapshot: True)
    skipped = tmp_path / "skipped.jsonl"
    skipped.write_text('{"row":2}\n')
    model = load_adapted(run_config(inputs).recipe, inputs / "model").model
    summary = TrainingSummary(steps=1, supervised_tokens=1, final_loss=1.0, published_step=1)
    lead.publish(model, summary, skipped)
    artifact = run_directory(tmp_path / "out") / "artifact"
    assert (artifact / "adapter_model.safetensors").exists()
    assert (artifact / "skipped.jsonl").read_text() == '{"row":2}\n'
    assert reporter.begun == [Phase.PUBLISH], "nor does it look like a download"
