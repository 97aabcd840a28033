"""How far the run is: kept by the trainer, read by a thread that reports it, told in the log."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from threading import Event, Lock, Thread
from typing import Any

from finetune_contract.checkpoint import CheckpointRef
from finetune_contract.progress import LONGEST_NOTE, Phase, Progress, RewardProgress
from finetune_contract.resolved import Resolved, RoleCoverage
from finetune_trainer.course.telemetry import StepRecord
from finetune_trainer.store.appearing import appearing

log = logging.getLogger(__name__)

LOG_SECONDS = 5.0
FILE_SECONDS = 1.0
STEPS_AVERAGED = 20
_AND = "; "
STEP_PHASES = (Phase.ROLLOUT, Phase.SCORE, Phase.TRAIN)  # between two steps done

Sink = Callable[[Progress], None]


class Reporter:
    """The current Progress of rank 0. Other threads may read `latest`, and note what they do."""

    def __init__(self) -> None:
        self.latest = Progress(phase=Phase.DOWNLOAD)
        self._lock = Lock()
        self._notes: dict[str, str] = {}
        self._logged_at = 0.0
        self._recent: deque[tuple[float, int]] = deque(maxlen=STEPS_AVERAGED)
        self.moves = 0  # changes so far

    def begin(self, phase: Phase, total: int | None = None) -> None:
        """Enter a phase; what was reached in earlier ones stays."""
        self._update(phase=phase, done=0, total=total, tokens_per_second=None, eta_seconds=None)
        log.info("phase %s%s", phase, f", {total} in all" if total else "")

    @property
    def step(self) -> int | None:
        """Return the optimizer step under way, counted from 1, else the last one done.

        None before training.
        """
        latest = self.latest
        return (latest.step or 0) + 1 if latest.phase in STEP_PHASES else latest.step

    @property
    def step_seconds(self) -> float | None:
        """Return the median time of the last steps; None before the first."""
        times = [seconds for seconds, _ in self._recent.copy()]
        return median(times) if times else None

    def pulsed(self, moves: int, seconds: int) -> None:
        """Note how often any rank got on, and after how long without that the run has stalled."""
        with self._lock:
            told = {"moves": moves, "stall_timeout_seconds": seconds}
            self.latest = self.latest.model_copy(update=told)

    def stirred(self) -> None:
        """Note that something got on that Progress does not count."""
        self._update()

    def resolved(self, found: Resolved) -> None:
        """Note how Auto was resolved."""
        self._update(plan=found)

    def adapted(self, coverage: tuple[RoleCoverage, ...]) -> None:
        """Note what LoRA reaches."""
        assert self.latest.plan is not None, "it is resolved before the model loads"
        self.resolved(self.latest.plan.model_copy(update={"lora": coverage}))

    def advised(self, advice: tuple[str, ...]) -> None:
        """Note what training can not mend."""
        assert self.latest.plan is not None, "it is resolved before the model loads"
        self.resolved(self.latest.plan.model_copy(update={"advice": advice}))

    def advance(self, count: int) -> None:
        """Add to the phase's counter."""
        self.reach(self.latest.done + count)

    def reach(self, done: int) -> None:
        """Set the phase's counter."""
        self._update(done=done)

    @contextmanager
    def aside(self, phase: Phase, total: int) -> Iterator[None]:
        """Be in a phase for a while, then in the one before, where its counter stood."""
        before = self.latest
        self.begin(phase, total)
        yield
        names = ("phase", "done", "total", "tokens_per_second", "eta_seconds")
        self._update(**{name: getattr(before, name) for name in names})

    def resumed(self, step: int) -> None:
        """Note at which step training begins."""
        self._update(done=step, step=step, resumed_step=step or None)

    def checkpointed(self, checkpoint: CheckpointRef) -> None:
        """Note a complete checkpoint."""
        self._update(checkpoint=checkpoint)

    def noted(self, part: str, note: str | None) -> None:
        """Tell what a part of the run waits for or fails at; None once it no longer does."""
        with self._lock:
            if note is None:
                self._notes.pop(part, None)
            else:
                self._notes[part] = note
            self.latest = self.latest.model_copy(update={"note": _joined([*self._notes.values()])})

    def evaluated(self, loss: float) -> None:
        """Note an eval loss."""
        self._update(eval_loss=loss)

    def rewarded(self, reward: float | None, rewards: tuple[RewardProgress, ...]) -> None:
        """Note how the last completions were scored."""
        self._update(reward=reward, rewards=rewards)

    def passed(self, step: int) -> None:
        """Note a step that had nothing to do."""
        self._update(done=step, step=step)

    def trained(self, record: StepRecord) -> None:
        """Note a finished optimizer step."""
        self._recent.append((record.seconds, record.tokens))
        spent = sum(s for s, _ in self._recent)
        rate = sum(t for _, t in self._recent) / spent
        total = self.latest.total or record.step
        eta = round((total - record.step) * spent / len(self._recent))
        self._update(
            done=record.step,
            step=record.step,
            loss=record.loss,
            tokens_per_second=round(rate, 1),
            eta_seconds=eta,
        )
        if record.step in (1, total) or time.monotonic() - self._logged_at >= LOG_SECONDS:
            self._logged_at = time.monotonic()
            log.info(
                "step %d/%d loss %.4f grad norm %.3f, %.0f tokens/s, %d s left",
                *(record.step, total, record.loss, record.grad_norm, rate, eta),
            )

    def _update(self, **values: Any) -> None:
        with self._lock:
            self.moves += 1
            self.latest = self.latest.model_copy(update=values)


def note_of_ranks(notes: Iterable[str | None]) -> str | None:
    """Return what the ranks wait for, each cause once; None where none waits."""
    return _AND.join(dict.fromkeys(note for note in notes if note)) or None


def _joined(notes: list[str]) -> str | None:
    """Return notes as one, in which each has its part of the room; None for none."""
    if not notes:
        return None
    width = (LONGEST_NOTE + len(_AND)) // len(notes) - len(_AND)
    return _AND.join(note[:width] for note in notes)


class Beat:
    """Hands the latest Progress to a sink at an interval, and once more at the end."""

    def __init__(self, reporter: Reporter, sink: Sink, seconds: float) -> None:
        self._reporter = reporter
        self._sink = sink
        self._seconds = seconds
        self._stop = Event()
        self._thread = Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Report for the last time and stop."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            stopping = self._stop.is_set()
            self._sink(self._reporter.latest)
            if stopping:
                return
            self._stop.wait(self._seconds)


def file_sink(path: Path) -> Sink:
    """Return a sink that keeps Progress as JSON in a file, replaced by rename."""

    def write(progress: Progress) -> None:
        with appearing(path) as partial:
            partial.write_text(progress.to_json())

    return write
