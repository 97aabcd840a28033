"""The way of metrics.jsonl to a tracker: a thread that reads what was added and sends it.

The file is the queue, so that an outage of any length costs neither memory nor points, an attempt
also delivers what an earlier one could not, and a step waits for nobody. At the end the tracker
gets a few seconds; what did not reach it is counted, and stands in the artifact's metrics.jsonl.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

from finetune_contract.reasons import Reason
from finetune_contract.runconfig import RunConfig
from finetune_trainer.course.trackers.base import (
    Point,
    Refused,
    Run,
    Tracker,
    Unavailable,
    public_uri,
)
from finetune_trainer.process.errors import Failure

log = logging.getLogger(__name__)

CURVES = {
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
    "tokens_per_second": "train/tokens_per_second",
    "eval_loss": "eval/loss",
}
COMPLAIN_SECONDS = 300.0
RECORDS_PER_CALL = 200


class Pace(NamedTuple):
    """Seconds between two deliveries, the most between two that fail, and of the last one."""

    send: float = 2.0
    longest_wait: float = 60.0
    close: float = 5.0


class Delivery:
    """Sends the records of a history to a tracker, from a thread of its own."""

    def __init__(
        self, make: Callable[[], Tracker], history: Path, run_id: str | None, pace: Pace
    ) -> None:
        self._make = make  # imports the tracker's library, which takes seconds: in the thread
        self._history = history
        self.run_id = run_id  # the tracker's, once it is known
        self._pace = pace
        self._tracker: Tracker | None = None
        self._offset = 0  # of the history, in bytes: what is before it was sent or refused
        self._refused = 0
        self._complained_at = -COMPLAIN_SECONDS
        self._closing: Reason | None = None
        self._wake = Event()
        self._thread = Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    def flush(self, seconds: float) -> None:
        """Wait until all that is in the history now was sent, at most so long."""
        size = self._history.stat().st_size if self._history.exists() else 0
        deadline = time.monotonic() + seconds
        while self._offset < size and time.monotonic() < deadline:
            self._wake.set()
            time.sleep(0.02)

    def close(self, reason: Reason) -> None:
        """Try once more to send everything and the final status, for a few seconds at most."""
        self._closing = reason
        self._wake.set()
        self._thread.join(self._pace.close)
        unsent = self._refused + sum(1 for _ in self._unsent())
        if unsent or self._thread.is_alive():
            log.warning(
                "%d records did not reach the tracker; the artifact's metrics.jsonl has them",
                unsent,
            )

    def _run(self) -> None:
        wait = self._pace.send
        while True:
            self._wake.wait(wait)
            self._wake.clear()
            closing, wait = self._closing, min(2 * wait, self._pace.longest_wait)
            try:
                tracker = self._tracker or self._open()
                self._deliver(tracker)
                if closing is not None:
                    tracker.close(closing)
                wait = self._pace.send
            except (Unavailable, Refused, Failure) as problem:
                self._complain(str(problem))
            except Exception as error:
                # The thread's edge: a tracker's library may raise anything, and its text may quote
                # a key.
                log.debug("the tracker failed", exc_info=error)
                self._complain(type(error).__name__)
            if closing is not None:
                return

    def _open(self) -> Tracker:
        tracker = self._make()
        tracker.open()
        self.run_id, self._tracker = tracker.run_id, tracker
        return tracker

    def _deliver(self, tracker: Tracker) -> None:
        lines = self._unsent()
        while chunk := list(islice(lines, RECORDS_PER_CALL)):
            points = [point for line in chunk for point in _points(line, tracker)]
            try:
                if points:
                    tracker.log(points)
            except Refused as refused:
                self._refused += len(chunk)
                self._complain(str(refused))
            self._offset += sum(len(line) for line in chunk)

    def _unsent(self) -> Iterator[bytes]:
        """Yield the lines after the offset, as far as they are complete."""
        if not self._history.exists():
            return
        with self._history.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if line.endswith(b"\n"):
                    yield line

    def _complain(self, problem: str) -> None:
        if time.monotonic() - self._complained_at >= COMPLAIN_SECONDS:
            self._complained_at = time.monotonic()
            log.warning("tracking failed, training goes on: %s", problem)


def _points(line: bytes, tracker: Tracker) -> Iterator[Point]:
    """Yield what the tracker does not have from an earlier attempt."""
    try:
        record: dict[str, Any] = json.loads(line)
    except ValueError:  # a full disk cut it short
        return
    # A method's own metrics have a group's name and a slash before their own.
    curves = CURVES | {field: field for field in record if "/" in field}
    for field, key in curves.items():
        value = record.get(field)
        if value is not None and record["step"] > tracker.reached(key):
            yield Point(key, value, record["step"], record["time"])


def describe_run(config: RunConfig, run_id: str | None) -> Run:
    """Return what a tracker is told of the run. No value holds a credential."""
    layout, recipe = config.layout, config.recipe
    assert layout.tracking is not None
    return Run(
        project=layout.tracking.project,
        name=layout.job.name,
        uid=layout.job.uid,
        params=flatten(recipe.model_dump(mode="json", by_alias=True, exclude_none=True)),
        tags={
            "finetune.dev/job": f"{layout.job.namespace}/{layout.job.name}",
            "finetune.dev/recipe": recipe.digest(),
            "finetune.dev/attempt": str(layout.attempt),
            "finetune.dev/output": public_uri(layout.output_uri),
        },
        run_id=run_id,
    )


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested values by dotted path; a list's items by their number."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        match value:
            case list():
                flat |= flatten({str(i): item for i, item in enumerate(value)}, f"{path}.")
            case Mapping():
                flat |= flatten(value, f"{path}.")
            case str() if "://" in value:
                flat[path] = public_uri(value)
            case _:
                flat[path] = str(value)
    return flat
