"""A rank from the rendezvous to its Result. Imports torch; `__main__` imports it late."""

from __future__ import annotations

import logging
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from finetune_contract.reasons import Reason
from finetune_contract.result import Outcome, Result, decode
from finetune_contract.runconfig import RunConfig
from finetune_trainer.course.heartbeat import lease_sink
from finetune_trainer.course.progress import FILE_SECONDS, Beat, Reporter, file_sink
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.ending import ResultFile, explain, failed, own_frames
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.stopping import Stop, interrupted
from finetune_trainer.run import Run
from finetune_trainer.train import train_and_publish

log = logging.getLogger(__name__)

LIBRARIES = ("torch", "transformers", "peft", "deepspeed", "obstore")


def run_rank(config: RunConfig, file: ResultFile, stop: Stop, progress_file: Path | None) -> Result:
    """Return how this rank's run ended; leave at once where another's failure left it waiting."""
    _quiet_libraries()
    _log_start(config)
    reporter = Reporter()
    ranks = Ranks.meet()
    ranks.watch_failures(lambda told: _follow(told, file))
    stop.leave = lambda: _leave(config, file, ranks, reporter)
    try:
        ranks.join(gpus=config.layout.gpus)
        with _reported(config, ranks, reporter, progress_file):
            artifact = train_and_publish(Run(config, ranks, reporter, stop))
    except Exception as error:  # noqa: BLE001 - the process's edge: any end becomes a Result
        return _failure(error, config, ranks, reporter, stop)
    try:
        # The group is not destroyed: NCCL's teardown can crash, and the process ends anyway.
        ranks.wait()
    except RuntimeError as error:  # the artifact is committed: a peer lost now changes nothing
        log.warning("the ranks did not part in order: %s", error)
    return Result(
        attempt=config.layout.attempt,
        outcome=Outcome.SUCCEEDED,
        reason=Reason.SUCCEEDED,
        rank=ranks.rank,
        step=reporter.latest.step,
        artifact=artifact,
        checkpoint=reporter.latest.checkpoint,
        plan=reporter.latest.plan,
    )


def _failure(
    error: Exception, config: RunConfig, ranks: Ranks, reporter: Reporter, stop: Stop
) -> Result:
    """Return this rank's Result: the first failing rank's, where this one only lost a peer."""
    failure = explain(error)
    if failure.reason is Reason.DISTRIBUTED_FAILURE and stop.came:
        failure = interrupted(reporter.latest.step)  # the peer was told too, and left first
    if failure.reason is Reason.INTERRUPTED:
        log.info("told to stop after %d steps", failure.step or 0)
        return _result(failure, config, ranks, reporter)
    log.error("rank %d failed", ranks.rank, exc_info=error)
    if failure.step is None:
        failure.step = reporter.step
    own = _result(failure, config, ranks, reporter, own_frames(error))
    if failure.reason is Reason.DISTRIBUTED_FAILURE:
        told = ranks.told_failure()
        return (decode(told) if told else None) or own
    if failure.rank is None:  # else all ranks agreed on it
        ranks.tell_failure(own)
    return own


def _result(
    failure: Failure,
    config: RunConfig,
    ranks: Ranks,
    reporter: Reporter,
    frames: tuple[str, ...] = (),
) -> Result:
    known = failed(failure, attempt=config.layout.attempt, rank=ranks.rank, frames=frames)
    latest = reporter.latest
    return known.model_copy(update={"checkpoint": latest.checkpoint, "plan": latest.plan})


def _leave(config: RunConfig, file: ResultFile, ranks: Ranks, reporter: Reporter) -> None:
    """End as told, whatever the main thread is in; tell the nodes that were not told."""
    result = _result(interrupted(reporter.latest.step), config, ranks, reporter)
    code = file.write(result)
    if config.layout.workers > 1:
        ranks.tell_failure(result)
    os._exit(code)


def _follow(told: str, file: ResultFile) -> None:
    result = decode(told)
    assert result is not None
    os._exit(file.write(result))


@contextmanager
def _reported(
    config: RunConfig, ranks: Ranks, reporter: Reporter, progress_file: Path | None
) -> Iterator[None]:
    """Report rank 0's progress to the Lease, else to a file if one is asked for."""
    heartbeat = config.layout.heartbeat
    if not ranks.is_lead or (heartbeat is None and progress_file is None):
        yield
        return
    if heartbeat is not None:
        sink = lease_sink(heartbeat, config.layout.job.namespace)
        beat = Beat(reporter, sink, heartbeat.interval_seconds)
    else:
        assert progress_file is not None
        beat = Beat(reporter, file_sink(progress_file), FILE_SECONDS)
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
