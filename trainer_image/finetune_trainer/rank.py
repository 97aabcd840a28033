"""A rank from the rendezvous to its Result. Imports torch; `__main__` imports it late."""

from __future__ import annotations

import logging
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from finetune_contract.reasons import Reason
from finetune_contract.result import Outcome, PublishedArtifact, Result, decode
from finetune_contract.runconfig import RunConfig
from finetune_trainer.course.heartbeat import lease_sink
from finetune_trainer.course.progress import FILE_SECONDS, Beat, Reporter, file_sink
from finetune_trainer.course.pulse import start_pulse
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.ending import ResultFile, explain, failed, own_frames
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.sign import SignFile
from finetune_trainer.process.stopping import Stop, interrupted
from finetune_trainer.run import Run

log = logging.getLogger(__name__)

Work = Callable[[Run], PublishedArtifact]
LIBRARIES = ("torch", "transformers", "peft", "deepspeed", "obstore")


def run_rank(
    config: RunConfig,
    file: ResultFile,
    sign: SignFile,
    stop: Stop,
    progress_file: Path | None,
    work: Work,
) -> Result:
    """Return how this rank's work ended; leave at once where another's failure left it waiting."""
    _quiet_libraries()
    _log_start(config)
    ranks = Ranks.meet()
    ranks.watch_failures(lambda told: _follow(told, file))
    run = Run(config, ranks, Reporter(), stop)
    stop.leave = lambda: _leave(run, file)
    start_pulse(run.reporter, sign, ranks.pulse(), config.layout.stall_timeout_seconds)
    try:
        ranks.join(gpus=config.layout.gpus)
        with _reported(run, progress_file):
            artifact = work(run)
    except BaseException as error:  # noqa: BLE001 - the process's edge: any end becomes a Result
        return _failure(error, run)
    try:
        # The group is not destroyed: NCCL's teardown can crash, and the process ends anyway.
        ranks.wait()
    except RuntimeError as error:  # the artifact is committed: a peer lost now changes nothing
        log.warning("the ranks did not part in order: %s", error)
    latest = run.reporter.latest
    return Result(
        attempt=config.layout.attempt,
        outcome=Outcome.SUCCEEDED,
        reason=Reason.SUCCEEDED,
        rank=ranks.rank,
        step=latest.step,
        artifact=artifact,
        checkpoint=latest.checkpoint,
        plan=latest.plan,
    )


def _failure(error: BaseException, run: Run) -> Result:
    """Return this rank's Result: the first failing rank's, where this one only lost a peer."""
    ranks, reporter, failure = run.ranks, run.reporter, explain(error)
    if failure.reason is Reason.DISTRIBUTED_FAILURE and run.stop.came:
        failure = interrupted(reporter.latest.step)  # the peer was told too, and left first
    if failure.reason is Reason.INTERRUPTED:
        log.info("told to stop after %d steps", failure.step or 0)
        return _result(failure, run)
    log.error("rank %d failed", ranks.rank, exc_info=error)
    if failure.step is None:
        failure.step = reporter.step
    own = _result(failure, run, own_frames(error))
    if failure.reason is Reason.DISTRIBUTED_FAILURE:
        told = ranks.told_failure()
        return (decode(told) if told else None) or own
    if failure.rank is None:  # else all ranks agreed on it
        ranks.tell_failure(own)
    return own


def _result(failure: Failure, run: Run, frames: tuple[str, ...] = ()) -> Result:
    attempt, latest = run.config.layout.attempt, run.reporter.latest
    known = failed(failure, attempt=attempt, rank=run.ranks.rank, frames=frames)
    return known.model_copy(update={"checkpoint": latest.checkpoint, "plan": latest.plan})


def _leave(run: Run, file: ResultFile) -> None:
    """End as told, whatever the main thread is in; tell the nodes that were not told."""
    result = _result(interrupted(run.reporter.latest.step), run)
    code = file.write(result)
    if run.config.layout.workers > 1:
        run.ranks.tell_failure(result)
    os._exit(code)


def _follow(told: str, file: ResultFile) -> None:
    result = decode(told)
    assert result is not None
    os._exit(file.write(result))


@contextmanager
def _reported(run: Run, progress_file: Path | None) -> Iterator[None]:
    """Report rank 0's progress to the Lease, else to a file if one is asked for."""
    heartbeat = run.config.layout.heartbeat
    if run.ranks.is_lead and heartbeat is not None:
        sink = lease_sink(heartbeat, run.config.layout.job.namespace)
        beat = Beat(run.reporter, sink, heartbeat.interval_seconds)
    elif run.ranks.is_lead and progress_file is not None:
        beat = Beat(run.reporter, file_sink(progress_file), FILE_SECONDS)
    else:
        yield
        return
    try:
        yield
    finally:
        beat.close()


def _quiet_libraries() -> None:
    """Leave out what a user can do nothing about: bars in a log, deprecations between libraries."""
    disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)


def _log_start(config: RunConfig) -> None:
    layout = config.layout
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    log.info("python %s, %s", platform.python_version(), libraries)
    log.info(
        "job %s attempt %d: %d workers x %d processes",
        *(layout.job.name, layout.attempt, layout.workers, layout.processes_per_worker),
    )
