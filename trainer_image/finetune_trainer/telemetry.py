"""The course of a run, for people: every step and evaluation in metrics.jsonl, sent to a tracker.

Rank 0 keeps it. None of it can end a run: a full disk or a dead tracker costs curves, no training.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune_contract.artifact import Provenance, TrainingSummary
from finetune_contract.plan import ResolvedPlan
from finetune_contract.reasons import Reason
from finetune_contract.runconfig import RunConfig

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"

Record = dict[str, Any]


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step. `tokens` counts all tokens of the step on all ranks, `seconds` its
    wall time; `grad_norm` is before clipping."""

    step: int  # counted from 1
    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int
    supervised_tokens: int
    seconds: float


@dataclass(frozen=True)
class RunFacts:
    """What the report says beside the curves."""

    provenance: Provenance
    summary: TrainingSummary
    plan: ResolvedPlan | None = None


class Telemetry:
    """Rank 0's records, one JSON object per step and per evaluation.

    A step's has the fields of StepRecord and `tokens_per_second`; an evaluation's has `step` and
    `eval_loss`; both have `time` (seconds since the epoch) and `attempt`. What is not finite is
    null.
    """

    def __init__(self, directory: Path, attempt: int, run_id: str | None) -> None:
        self.history = directory / METRICS
        self.run_id = run_id  # the tracker's; one across attempts
        self._attempt = attempt
        self._lost = 0

    @classmethod
    def start(
        cls, config: RunConfig, *, run_id: str | None, history: bytes | None, step: int
    ) -> Telemetry:
        """Go on after `step` steps with the run and the history of the checkpoint, if any."""
        layout = config.layout
        telemetry = cls(Path(layout.scratch_dir, "telemetry"), layout.attempt, run_id)
        telemetry.resume(history or b"", step)
        return telemetry

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
        self._note({**asdict(record), "tokens_per_second": round(rate, 1)})

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
        return {METRICS: self.history} if self.history.exists() else {}

    def close(self, reason: Reason) -> None:
        """Tell the tracker how the attempt ended; takes seconds at most."""
        log.debug("the run ended: %s", reason)

    def _note(self, values: Record) -> None:
        finite = {name: _finite(value) for name, value in values.items()}
        record = {**finite, "time": round(time.time(), 3), "attempt": self._attempt}
        try:
            with self.history.open("a") as file:
                file.write(_line(record))
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        self._lost += 1
        if self._lost == 1:
            log.warning("%s can not be kept, training goes on: %s", METRICS, error.strerror)


def parse(history: bytes) -> Iterable[Record]:
    """Yield the records of a metrics.jsonl; a line that was cut short is passed over."""
    for line in history.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            log.warning("a damaged line of %s was left out", METRICS)


def _line(record: Record) -> str:
    return json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
