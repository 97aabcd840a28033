"""A live bar for a run: phase, counter, loss, tokens per second, time left."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress

from finetune_cli.console import ERR
from finetune_contract.progress import Progress


class ProgressBar:
    """Shows what was last reported: on a terminal in place, else a line now and then."""

    def __init__(self) -> None:
        self._printed = ("", 0)  # phase and tenth of it
        self._bar = RichProgress(
            TextColumn("{task.description:>9}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("{task.fields[detail]}"),
            console=ERR,
        )
        self._task = self._bar.add_task("Starting", total=None, detail="")

    def __enter__(self) -> ProgressBar:
        if ERR.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, progress: Progress) -> None:
        """Draw one report."""
        if ERR.is_terminal:
            self._bar.update(
                self._task,
                description=str(progress.phase),
                completed=progress.done,
                total=progress.total,
                detail=describe(progress),
            )
            return
        reached = (str(progress.phase), 10 * progress.done // (progress.total or 1))
        if reached != self._printed:
            ERR.print(f"{progress.phase:<9} {describe(progress)}".rstrip(), highlight=False)
            self._printed = reached


def describe(progress: Progress) -> str:
    """Return counter, loss, speed and time left in one line; what is unknown is left out."""
    parts = [progress.summary().removeprefix(str(progress.phase)).strip()]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    if progress.tokens_per_second is not None:
        parts.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    if progress.eta_seconds is not None:
        minutes, seconds = divmod(progress.eta_seconds, 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return "  ".join(part for part in parts if part)
