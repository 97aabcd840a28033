"""The course of a run, for people: every step and evaluation in metrics.jsonl, sent to a tracker.

Rank 0 keeps it. None of it can end a run: a full disk or a dead tracker costs curves, no training.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from finetune_contract.layout import TrackingType
from finetune_contract.reasons import Reason
from finetune_contract.runconfig import RunConfig
from finetune_trainer.course.report.page import RunFacts, render
from finetune_trainer.course.trackers.registry import make_tracker
from finetune_trainer.course.tracking import Delivery, Pace, describe_run

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
REPORT = "report.html"
EVENTS = "tensorboard"
FLUSH_SECONDS = 3.0

Record = dict[str, Any]


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step. `tokens` counts all tokens of the step on all ranks, `seconds` its
    wall time; `grad_norm` is before clipping; `metrics` are the method's own, by name."""

    step: int  # counted from 1
    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int
    supervised_tokens: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)


class Telemetry:
    """Rank 0's records, one JSON object per step and per evaluation.

    A step's has the fields of StepRecord, its metrics one by one, and `tokens_per_second`; an
    evaluation's has `step` and `eval_loss`; both have `time` (seconds since the epoch) and
    `attempt`. What is not finite is null. `curves` are what the report draws of the method's own
    metrics: title -> metric.
    """

    def __init__(
        self, config: RunConfig, curves: Mapping[str, str], pace: Pace | None = None
    ) -> None:
        self.history = Path(config.layout.scratch_dir, "telemetry", METRICS)
        self._config = config
        self._curves = curves
        self._pace = pace or Pace()
        self._lost = 0
        self._cut_short = False  # the last line may be, by a full disk
        self._delivery: Delivery | None = None
        self._waits = False  # for the tracker's files, which belong into the artifact

    def go_on(self, *, run_id: str | None, history: bytes, step: int) -> None:
        """Go on after `step` steps with the run and the history of the checkpoint, if any."""
        layout = self._config.layout
        self.resume(history, step)
        if layout.tracking is not None:
            run, secret = describe_run(self._config, run_id), layout.credentials.tracking
            make = partial(make_tracker, layout.tracking, run, secret, self.history.parent)
            self._delivery = Delivery(make, self.history, run_id, self._pace)
            self._waits = layout.tracking.type is TrackingType.TENSORBOARD

    @property
    def run_id(self) -> str | None:
        """Return the tracker's id of the run, one across attempts; None until it is known."""
        return self._delivery.run_id if self._delivery else None

    def resume(self, history: bytes, step: int) -> None:
        """Keep of a history what happened up to `step`, so that no step stands there twice."""
        records = [record for record in parse(history) if record["step"] <= step]
        text = "".join(_line(record) for record in records)
        try:
            self.history.parent.mkdir(parents=True, exist_ok=True)
            self.history.write_text(text)
        except OSError as error:
            self._complain(error)

    def step(self, record: StepRecord) -> None:
        """Note an optimizer step."""
        rate = record.tokens / record.seconds if record.seconds > 0 else math.nan
        fields = asdict(record)
        metrics = fields.pop("metrics")
        self._note({**fields, **metrics, "tokens_per_second": round(rate, 1)})

    def evaluated(self, step: int, loss: float) -> None:
        """Note the eval loss after `step` steps."""
        self._note({"step": step, "eval_loss": loss})

    def snapshot(self) -> bytes:
        """Return the history as it stands, for a checkpoint."""
        try:
            return self.history.read_bytes()
        except OSError as error:
            self._complain(error)
            return b""

    def files(self, facts: RunFacts) -> dict[str, Path]:
        """Return what belongs into the artifact: path there -> file on this disk."""
        directory = self.history.parent
        if self._delivery is not None and self._waits:
            self._delivery.flush(FLUSH_SECONDS)
        self._report(facts)
        events = sorted((directory / EVENTS).glob("*"))
        found = [p for p in (self.history, directory / REPORT, *events) if p.is_file()]
        return {path.relative_to(directory).as_posix(): path for path in found}

    def close(self, reason: Reason) -> None:
        """Tell the tracker how the attempt ended; takes seconds at most."""
        if self._delivery is not None:
            self._delivery.close(reason)

    def _report(self, facts: RunFacts) -> None:
        try:
            page = render(self._config, list(parse(self.snapshot())), facts, self._curves)
            self.history.with_name(REPORT).write_text(page)
        except Exception as error:
            # An adapter that took days is not lost to a page about it.
            log.warning("%s is left out", REPORT, exc_info=error)

    def _note(self, values: Record) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        record = {**finite, "time": round(time.time(), 3), "attempt": self._config.layout.attempt}
        try:
            with self.history.open("a") as file:
                file.write("\n" * self._cut_short + _line(record))
            self._cut_short = False
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        self._cut_short = True
        self._lost += 1
        if self._lost == 1:
            log.warning("%s can not be kept, training goes on: %s", METRICS, error.strerror)


def parse(history: bytes) -> Iterable[Record]:
    """Yield the records of a metrics.jsonl; a line that was cut short is passed over."""
    for line in filter(None, history.splitlines()):
        try:
            yield json.loads(line)
        except ValueError:
            log.warning("a damaged line of %s was left out", METRICS)


def _line(record: Record) -> str:
    return json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n"
