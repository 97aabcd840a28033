"""The page: records and facts -> HTML, through an escaping template."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from finetune_contract.artifact import Provenance, TrainingSummary
from finetune_contract.resolved import MemoryEstimate, Resolved
from finetune_contract.runconfig import RunConfig
from finetune_trainer.course.report.curves import (
    PLOT,
    Chart,
    Curve,
    Mark,
    Point,
    chart,
    short,
    smooth,
)
from finetune_trainer.course.trackers.base import public_uri
from finetune_trainer.data.faults import in_words

TEMPLATE = "page.html.j2"
SMOOTHED_FROM = 40  # steps
MOST_EVALS = 20
GIB = 1024**3

Record = dict[str, Any]


@dataclass(frozen=True)
class RunFacts:
    """What the report says beside the curves."""

    provenance: Provenance
    summary: TrainingSummary
    resolved: Resolved | None = None


@dataclass(frozen=True)
class Table:
    """Rows of a title; the first cell of each names it."""

    title: str
    rows: Sequence[Sequence[object]]
    heads: Sequence[str] = ()


def render(
    config: RunConfig, records: Sequence[Record], facts: RunFacts, curves: Mapping[str, str]
) -> str:
    """Return the page: records are metrics.jsonl's, in order; `curves` the method's, by title."""
    environment = Environment(
        loader=PackageLoader("finetune_trainer.course.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"public": public_uri, "short": short}
    steps = [record for record in records if "loss" in record]
    evals = [record for record in records if "eval_loss" in record]
    attempts = _attempts(steps)
    tables = [_origin(config, facts), *_tables(facts.resolved, attempts, evals)]
    return environment.get_template(TEMPLATE).render(
        config=config,
        recipe=config.recipe,
        summary=facts.summary,
        tiles=_tiles(steps, facts.summary),
        plot=PLOT,
        charts=_charts(steps, evals, attempts, facts, curves),
        tables=[table for table in tables if table.rows],
    )


def _charts(
    steps: Sequence[Record],
    evals: Sequence[Record],
    attempts: Sequence[tuple[int, int, int]],
    facts: RunFacts,
    curves: Mapping[str, str],
) -> list[Chart]:
    """Return the rewards, if the method has any, then the method's own metrics, then the others."""
    resumes: list[Mark] = [(first, f"attempt {attempt}") for attempt, first, _ in attempts[1:]]
    published: list[Mark] = [(facts.summary.published_step, "published")] if evals else []
    rewards = _smoothed("mean reward", _points(steps, "reward/mean"))
    losses = _smoothed("training loss", _points(steps, "loss"))
    losses.append(Curve("eval loss", _points(evals, "eval_loss"), "eval", dots=True))

    def one(title: str, metric: str) -> Chart | None:
        return chart(title, [Curve(title, _points(steps, metric))], resumes)

    charts = [
        chart("reward", rewards, resumes, "The mean total of a step's completions."),
        *(one(title, metric) for title, metric in curves.items()),
        chart(
            "loss",
            losses,
            [*resumes, *published],
            "The mean over all learned tokens of a step, in nats.",
        ),
        one("learning rate", "learning_rate"),
        one("gradient norm", "grad_norm"),
        one("tokens per second", "tokens_per_second"),
    ]
    return [drawn for drawn in charts if drawn is not None]


def _smoothed(name: str, points: list[Point]) -> list[Curve]:
    """Return a curve, and its average as well where it is long enough to be noisy."""
    if len(points) < SMOOTHED_FROM:
        return [Curve(name, points)]
    return [Curve(f"{name} per step", points, "raw"), Curve(f"{name}, smoothed", smooth(points))]


def _points(records: Sequence[Record], field: str) -> list[Point]:
    return [(r["step"], r[field]) for r in records if r.get(field) is not None]


def _attempts(steps: Sequence[Record]) -> list[tuple[int, int, int]]:
    """Return each attempt that did steps, with its first and last one that counted."""
    found: dict[int, list[int]] = {}
    for record in steps:
        found.setdefault(record["attempt"], []).append(record["step"])
    return [(attempt, done[0], done[-1]) for attempt, done in found.items()]


def _tiles(steps: Sequence[Record], summary: TrainingSummary) -> Iterator[tuple[str, str]]:
    """Yield the figures at the top: label and value."""
    rates = [record["tokens_per_second"] for record in steps if record["tokens_per_second"]]
    yield "Final training loss", f"{summary.final_loss:.4f}"
    if summary.final_reward is not None:
        yield "Final mean reward", f"{summary.final_reward:.4f}"
    if summary.eval_loss is not None:
        yield "Eval loss, published", f"{summary.eval_loss:.4f}"
    yield "Steps", f"{summary.steps:,}"
    yield "Learned tokens", f"{summary.supervised_tokens:,}"
    yield "Time in steps", _duration(sum(record["seconds"] for record in steps))
    if rates:
        yield "Tokens per second, median", f"{statistics.median(rates):,.0f}"


def _origin(config: RunConfig, facts: RunFacts) -> Table:
    """Return what the adapter was made from."""
    provenance, training = facts.provenance, config.recipe.training
    model, summary = provenance.model, facts.summary
    files = [("Training data", one) for one in provenance.datasets]
    files += [("Eval data", one) for one in provenance.eval_datasets]
    recipe = (
        f"{training.optimizer}, {training.schedule.lower()} schedule from "
        f"{training.learning_rate}, {training.global_batch_size} rows a step, at most "
        f"{training.sequence_length:,} tokens a row, seed {training.seed}"
    )
    rows: list[tuple[str, ...]] = [
        ("Model", public_uri(model.uri), model.revision),
        *((kind, public_uri(f.uri), f"{f.rows:,} rows", f.sha256) for kind, f in files),
        ("Skipped rows", f"{summary.skipped_rows:,}"),
        ("Ignored keys", in_words(summary.ignored_keys) or "none"),
        ("Recipe", provenance.recipe_digest),
        ("Optimiser", recipe),
    ]
    if (resolved := facts.resolved) is not None:
        words = [
            f"processes {config.layout.world_size}",
            f"micro-batch {resolved.micro_batch_size}",
            f"{resolved.accumulation_steps} a step",
            f"ZeRO-{resolved.zero_stage.value}",
            *["packed"] * resolved.packing,
            *["gradient checkpointing"] * resolved.gradient_checkpointing,
        ]
        rows.append(("Layout", ", ".join(words)))
    rows.append(("Published", f"the adapter of step {summary.published_step:,}"))
    return Table("What it was made from", rows)


def _tables(
    resolved: Resolved | None, attempts: Sequence[tuple[int, int, int]], evals: Sequence[Record]
) -> Iterator[Table]:
    steps = [(attempt, f"{first:,} to {last:,}") for attempt, first, last in attempts]
    yield Table("Attempts", steps if len(steps) > 1 else (), ("Attempt", "Steps that count"))
    if resolved is not None:
        reached = [(c.role, f"{c.found:,}", f"{c.adapted:,}") for c in resolved.lora]
        yield Table("What LoRA reaches", reached, ("Role", "Matrices found", "Adapted"))
        yield _memory(resolved.memory)
    shown = f"the last {MOST_EVALS} of {len(evals)}" if len(evals) > MOST_EVALS else "all"
    losses = [
        (f"{e['step']:,}", "not finite" if e["eval_loss"] is None else f"{e['eval_loss']:.4f}")
        for e in evals[-MOST_EVALS:]
    ]
    yield Table(f"Evaluations, {shown}", losses, ("Step", "Eval loss"))


def _memory(estimate: MemoryEstimate) -> Table:
    """Return the parts of the estimate that are not nothing, with their share of the whole."""
    there = f" of {estimate.available / GIB:.1f} GiB" if estimate.available else ""
    rows = [
        (name.capitalize(), f"{size / GIB:.3f} GiB", f"{size / estimate.total:.1%}")
        for name, size in estimate.parts.items()
        if size > 0
    ]
    title = f"Memory of one process, an estimate, {estimate.total / GIB:.2f} GiB{there}"
    return Table(title, rows)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
