"""Ranks from the rendezvous to their Results, in processes of their own: they end together."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest
import torch
import torch.distributed as dist
from obstore.store import S3Store

from finetune_contract.progress import Phase
from finetune_contract.reasons import Reason
from finetune_contract.result import Outcome, PublishedArtifact, Result
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.ending import ResultFile
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.sign import SignFile
from finetune_trainer.process.stopping import Stop
from finetune_trainer.rank import run_rank
from finetune_trainer.run import Run
from support.trainer.forked_ranks import forked
from support.trainer.runs import run_config

ARTIFACT = PublishedArtifact(uri="file:///a", digest="sha256:0", bytes=1)


def test_what_is_done_together_ends_together() -> None:
    def case(rank: int) -> tuple[int, int | None]:
        ranks = Ranks.meet()
        ranks.join()
        mine = ranks.together(lambda: rank)
        with pytest.raises(Failure, match="full") as caught:
            ranks.together(lambda: full() if rank == 1 else None)
        ranks.wait()
        return mine, caught.value.rank

    def full() -> None:
        raise Failure(Reason.DISK_FULL, "full")

    assert forked(2, case) == [(0, 1), (1, 1)]


def test_a_rank_that_gets_on_is_a_sign_for_all_which_are_as_patient_as_the_lead() -> None:
    def case(rank: int) -> tuple[bool, list[float]]:
        ranks = Ranks.meet()
        ranks.join()
        exchange = ranks.pulse()
        before, _ = exchange(False, 9.0 if rank == 0 else 5.0)
        ranks.wait()
        _, first = exchange(False, 9.0 if rank == 0 else 5.0)
        ranks.wait()
        exchange(rank == 1, 3.0 if rank == 0 else 5.0)
        ranks.wait()
        after, then = exchange(False, 3.0 if rank == 0 else 5.0)
        ranks.wait()
        return after > before, [first, then]

    assert forked(2, case) == [(True, [9.0, 3.0]), (True, [9.0, 5.0])]


def ran(directory: Path, work: Callable[[Run], PublishedArtifact], **layout: Any) -> Result:
    """Return how this process's run ends."""
    stop = Stop(1.0, leave=lambda: None)
    return run_rank(
        run_config(directory, **layout),
        ResultFile(directory, 0),
        SignFile(directory, 0),
        stop,
        None,
        work,
    )


def test_a_committed_run_succeeds_without_a_teardown_that_may_crash(tmp_path: Path) -> None:
    def case(rank: int) -> tuple[Outcome, PublishedArtifact | None, bool]:
        result = ran(tmp_path, lambda run: ARTIFACT)
        return result.outcome, result.artifact, dist.is_initialized()

    assert forked(1, case) == [(Outcome.SUCCEEDED, ARTIFACT, True)]


def test_ranks_of_a_committed_run_part_together(tmp_path: Path) -> None:
    def case(rank: int) -> float:
        def work(run: Run) -> PublishedArtifact:
            time.sleep(0.3 * rank)
            return ARTIFACT

        ran(tmp_path, work, workers=2)
        return time.monotonic()

    began = time.monotonic()
    assert all(ended >= began + 0.3 for ended in forked(2, case))


def test_gpus_that_the_job_asks_for_must_be_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    [result] = forked(1, lambda rank: ran(tmp_path, lambda run: ARTIFACT, gpus=True))
    assert (result.outcome, result.reason) == (Outcome.FAILED, Reason.DEVICE_UNSUPPORTED)


@pytest.mark.parametrize("phase", [Phase.ROLLOUT, Phase.SCORE, Phase.PUBLISH])
@pytest.mark.parametrize("error", [Failure(Reason.REWARD_FAILED, "broken"), MemoryError()])
def test_a_failure_tells_the_step_whatever_the_phase(
    tmp_path: Path, phase: Phase, error: Exception
) -> None:
    def fails(run: Run) -> Any:
        reporter = run.reporter
        reporter.begin(Phase.TRAIN, 9)
        reporter.resumed(4)
        reporter.begin(phase, 16)
        reporter.advance(12)
        raise error

    [result] = forked(1, lambda rank: ran(tmp_path, fails))
    assert (result.outcome, result.rank) == (Outcome.FAILED, 0)
    assert result.step == (4 if phase is Phase.PUBLISH else 5)


def test_a_panic_of_a_library_in_rust_leaves_a_result(tmp_path: Path) -> None:
    """It is no Exception."""

    def panics(run: Run) -> Any:
        obstore.put(S3Store("b", endpoint="x", access_key_id="x", secret_access_key="x"), "x", b"")

    [result] = forked(1, lambda rank: ran(tmp_path, panics))
    assert result.reason is Reason.TRAINER_ERROR
    assert result.message == "pyo3_runtime.PanicException; the pod's log has its text"
