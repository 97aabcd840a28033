"""A live bar for a run, and lines for what is told once: the plan, and what it waits for."""

from __future__ import annotations

from collections.abc import Sequence

from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress

from finetune_cli.console import ERR
from finetune_contract.progress import Phase, Progress, RewardProgress
from finetune_contract.resolved import Resolved

_GIB = 2**30


class ProgressBar:
    """Shows what was last reported: on a terminal in place, else a line now and then."""

    def __init__(self) -> None:
        self._printed = ("", 0)  # phase and tenth of it
        self._told: set[str] = set()
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

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def show(self, progress: Progress) -> None:
        """Draw one report."""
        for line in news(progress):
            if line not in self._told:
                self._told.add(line)
                ERR.print(line, highlight=False)
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
        every_step = progress.phase in (Phase.ROLLOUT, Phase.SCORE) and progress.step
        if reached != self._printed and not every_step:
            ERR.print(f"{progress.phase:<9} {describe(progress)}".rstrip(), highlight=False)
            self._printed = reached


def describe(progress: Progress) -> str:
    """Return in one line counter, losses or rewards, speed, time left and the last checkpoint.

    What is unknown is left out.
    """
    parts = [progress.summary().removeprefix(str(progress.phase)).strip()]
    if progress.reward is not None:  # the loss of GRPO is about 0 whatever the model learns
        parts.append(_rewards(progress.reward, progress.rewards))
    elif progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    if progress.eval_loss is not None:
        parts.append(f"eval {progress.eval_loss:.4f}")
    if progress.tokens_per_second is not None:
        parts.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    if progress.eta_seconds is not None:
        minutes, seconds = divmod(progress.eta_seconds, 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    if progress.checkpoint is not None:
        parts.append(f"saved at {progress.checkpoint.step}")
    return "  ".join(part for part in parts if part)


def news(progress: Progress) -> list[str]:
    """Return the lines that are printed once: how Auto was resolved, where the run goes on from,
    and what it waits for."""
    lines = []
    if progress.plan is not None:
        lines.append(_resolved_line(progress.plan))
    if progress.resumed_step is not None:
        lines.append(f"goes on from the checkpoint of step {progress.resumed_step}")
    if progress.note is not None:
        lines.append(progress.note)
    return lines


def _rewards(total: float, rewards: Sequence[RewardProgress]) -> str:
    means = [f"{reward.name} {reward.mean:.2f}" for reward in rewards if reward.mean is not None]
    return f"reward {total:.4f}" + (f" ({', '.join(means)})" if len(means) > 1 else "")


def _resolved_line(plan: Resolved) -> str:
    parts = [
        f"{plan.micro_batch_size} rows per pass x {plan.accumulation_steps} passes per process",
        f"ZeRO stage {plan.zero_stage:d}",
    ]
    if plan.packing:
        parts.append("packed")
    if plan.gradient_checkpointing:
        parts.append("gradient checkpointing")
    memory = f"{plan.memory.total / _GIB:.1f}"
    if plan.memory.available is not None:
        memory += f" of {plan.memory.available / _GIB:.1f}"
    return f"plan: {', '.join(parts)}; about {memory} GiB per process (estimated)"
