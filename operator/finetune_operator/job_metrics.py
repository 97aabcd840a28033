"""Metrics of each job, from its status as the cache has it when Prometheus asks.

Nothing is counted along the way, so a series begins and ends with its job, and a restart of the
operator changes no number. Labels are names and words of the API, never free text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from finetune_api.status import Attempt, ConditionType, FineTuneJobStatus
from finetune_contract.reasons import TABLE, Reason, Retry
from finetune_operator.cluster.cache import Cache, Key
from finetune_operator.job.names import Object
from finetune_operator.job.stored import find, finished, stored_status
from finetune_operator.job.times import timestamp

_HELP = {
    "state": "1: what the job is at, why, and what follows an end for that reason",
    "attempts": "Attempts so far",
    "gpus": "GPUs that the running attempt holds",
    "gpu_seconds": "GPUs x seconds from when all pods of an attempt ran to its end",
    "gpu_seconds_lost": "The part of gpu_seconds whose steps are in no checkpoint; added once the "
    "next attempt has begun, or the job has finished",
    "steps": "Optimizer steps done",
    "progress_ratio": "How far the part of the run is that is under way, 0 to 1",
    "last_report_timestamp_seconds": "When the trainer last reported, by its own clock",
}
_COUNTERS = ("gpu_seconds", "gpu_seconds_lost")
_LABELS = {"state": ("state", "reason", "retry"), "progress_ratio": ("phase",)}

Sample = tuple[str, tuple[str, ...], float]


@dataclass(frozen=True)
class Figures:
    """A job's numbers; what its running attempt takes grows from `since` on, `gpus` a second."""

    samples: tuple[Sample, ...]
    gpu_seconds: float
    gpus: float
    since: datetime | None

    def at(self, now: datetime) -> Iterator[Sample]:
        """Yield family, labels and value of each series."""
        yield from self.samples
        # Whole seconds, as an attempt's end is written, so that the counter never goes back.
        running = (now.replace(microsecond=0) - self.since).total_seconds() if self.since else 0
        yield "gpu_seconds", (), self.gpu_seconds + max(0, running) * self.gpus


def figures_of(body: Object) -> Figures:
    """Return a job's numbers, of what in its status the operator can have written."""
    status = stored_status(body)
    attempts = status.attempts or []
    gpus = float(status.plan.gpus) if status.plan else 0.0
    state, reason = _state(status)
    samples: list[Sample] = [
        ("state", (state, reason, _retry(reason)), 1.0),
        ("attempts", (), float(len(attempts))),
        (
            "gpu_seconds_lost",
            (),
            gpus * sum(_lost(status, place) for place in range(len(attempts))),
        ),
    ]
    last = attempts[-1] if attempts else None
    since = timestamp(last.running_time) if last and not last.end_time else None
    if last is not None and not last.end_time:
        samples += _progress(status, last)
        samples.append(("gpus", (), gpus if since else 0.0))
    return Figures(tuple(samples), gpus * sum(map(_ran, attempts)), gpus, since)


def _state(status: FineTuneJobStatus) -> tuple[str, str]:
    """Return one word for where the job is, and the reason."""
    succeeded = find(status, ConditionType.SUCCEEDED)
    if succeeded is None:
        return "Waiting", ""
    if succeeded.status != "Unknown":
        return "Succeeded" if succeeded.status == "True" else "Failed", succeeded.reason
    for kind in (ConditionType.STALLED, ConditionType.SUSPENDED):
        if find(status, kind) is not None:
            return kind.value, succeeded.reason
    return "Running" if succeeded.reason == Reason.RUNNING else "Waiting", succeeded.reason


def _retry(reason: str) -> str:
    return next((row.retry.value for known, row in TABLE.items() if known == reason), Retry.NONE)


def _progress(status: FineTuneJobStatus, last: Attempt) -> Iterator[Sample]:
    """Yield what the running attempt last reported."""
    report = status.progress
    if report is None or report.attempt != last.number:
        return
    if report.step is not None:
        yield "steps", (), float(report.step)
    if report.total:
        yield "progress_ratio", (report.phase.value,), min(1.0, report.done / report.total)
    if (time := timestamp(report.last_report_time)) is not None:
        yield "last_report_timestamp_seconds", (), time.timestamp()


def _ran(attempt: Attempt) -> float:
    """Return for how many seconds an attempt that ended had all its pods."""
    began, ended = timestamp(attempt.running_time), timestamp(attempt.end_time)
    return max(0.0, (ended - began).total_seconds()) if began and ended else 0.0


def _lost(status: FineTuneJobStatus, place: int) -> float:
    """Return how many of an attempt's seconds must be spent again, once nothing corrects that."""
    attempts = status.attempts or []
    attempt = attempts[place]
    if attempt.reason == Reason.SUCCEEDED or not _is_settled(
        status, attempt, attempts[place + 1 :]
    ):
        return 0.0
    done = (attempt.last_step or 0) - (attempt.resumed_step or 0)
    return _ran(attempt) * (min(1.0, (attempt.lost_steps or 0) / done) if done > 0 else 1.0)


def _is_settled(status: FineTuneJobStatus, attempt: Attempt, later: list[Attempt]) -> bool:
    """Tell whether it is known where the next attempt began, or that there was to be none.

    What an attempt lost is corrected until then, and a counter must not go back.
    """
    if not later:
        let_go_on = status.retry is not None and status.retry.after_attempt == attempt.number
        return let_go_on or finished(status)
    following, report = later[0], status.progress
    told = report is not None and report.attempt == following.number and report.step is not None
    return told or following.resumed_step is not None or following.end_time is not None


class JobMetrics(Collector):
    """Tells the figures of all jobs; none while this operator does not lead."""

    def __init__(
        self, cache: Cache, clock: Callable[[], datetime], leads: Callable[[], bool]
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._leads = leads
        self._known: dict[Key, tuple[Any, Figures]] = {}  # by the version they are of

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Yield each family, with a sample for each job that has one."""
        families = {name: _family(name) for name in _HELP}
        now = self._clock()
        self._known = dict(self._figures()) if self._leads() else {}
        for key, (_, figures) in self._known.items():
            for name, labels, value in figures.at(now):
                families[name].add_metric((key.namespace, key.name, *labels), value)
        yield from families.values()

    def _figures(self) -> Iterator[tuple[Key, tuple[Any, Figures]]]:
        """Yield each job's figures; they are reckoned anew where the job changed."""
        for key, record in self._cache.jobs():  # a snapshot: this is a thread of its own
            version = record.uid, record.version
            known = self._known.get(key)
            same = known is not None and known[0] == version
            yield key, known if known is not None and same else (version, figures_of(record.body))


def _family(name: str) -> GaugeMetricFamily | CounterMetricFamily:
    kind = CounterMetricFamily if name in _COUNTERS else GaugeMetricFamily
    labels = ("namespace", "name", *_LABELS.get(name, ()))
    return kind(f"finetune_job_{name}", _HELP[name], labels=labels)
