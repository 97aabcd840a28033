"""The page: records and facts -> HTML, through an escaping template."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from finetune_contract.artifact import Provenance, TrainingSummary
from finetune_contract.resolved import MemoryEstimate, Resolved
from finetune_contract.runconfig import RunConfig
from finetune_trainer.course.report.curves import Curve, Mark, Point, chart, short, smooth
from finetune_trainer.course.trackers.base import public_uri

TEMPLATE = "page.html.j2"
SMOOTHED_FROM = 40  # steps
GIB = 1024**3

Record = dict[str, Any]


@dataclass(frozen=True)
class RunFacts:
    """What the report says beside the curves; `curves` are the method's own metrics, by title."""

    provenance: Provenance
    summary: TrainingSummary
    plan: Resolved | None = None
    curves: Mapping[str, str] = field(default_factory=dict)


def render(config: RunConfig, records: Sequence[Record], facts: RunFacts) -> str:
    """Return the page. Records are those of metrics.jsonl, in order."""
    environment = Environment(
        loader=PackageLoader("finetune_trainer.course.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"public": public_uri, "count": lambda number: f"{number:,}"}
    steps = [record for record in records if "loss" in record]
    evals = [record for record in records if "eval_loss" in record]
    return environment.get_template(TEMPLATE).render(
        config=config,
        recipe=config.recipe,
        facts=facts,
        summary=facts.summary,
        provenance=facts.provenance,
        plan=facts.plan,
        memory=_memory(facts.plan.memory) if facts.plan else [],
        attempts=_attempts(steps),
        evals=evals,
        tiles=_tiles(steps, facts),
        charts=_charts(steps, evals, facts),
        reward=_reward_chart(steps),
        curves=_curves(steps, facts),
    )


def _charts(steps: Sequence[Record], evals: Sequence[Record], facts: RunFacts) -> dict[str, Any]:
    marks = _resumes(steps)
    train = _smoothed("training loss", _points(steps, "loss"))
    evaluated = Curve("eval loss", _points(evals, "eval_loss"), "eval", dots=True)
    published = Mark(facts.summary.published_step, "published")
    of_loss = [*marks, published] if evals else marks
    rate = _points(steps, "tokens_per_second")
    norm = _points(steps, "grad_norm")
    learning = _points(steps, "learning_rate")
    return {
        "loss": chart("Loss", [*train, evaluated], of_loss, width=920, height=320),
        "learning rate": chart(
            "Learning rate", [Curve("learning rate", learning, "train")], marks, from_zero=True
        ),
        "gradient norm": chart(
            "Gradient norm", [Curve("gradient norm", norm, "train")], marks, from_zero=True
        ),
        "tokens per second": chart(
            "Throughput", [Curve("tokens per second", rate, "train")], marks, from_zero=True
        ),
    }


def _reward_chart(steps: Sequence[Record]) -> str:
    """Return the curve of the mean total; empty for a method without rewards."""
    curves = _smoothed("mean reward", _points(steps, "reward/mean"))
    return chart("Reward", curves, _resumes(steps), width=920, height=320)


def _curves(steps: Sequence[Record], facts: RunFacts) -> dict[str, str]:
    """Return small curves of the method's own metrics, by title, where there are points."""
    drawn = {
        title: chart(
            title, [Curve(title, _points(steps, metric), "train")], _resumes(steps), from_zero=True
        )
        for title, metric in facts.curves.items()
    }
    return {title: curve for title, curve in drawn.items() if curve}


def _smoothed(name: str, points: list[Point]) -> list[Curve]:
    """Return a curve, and its average as well where it is long enough to be noisy."""
    if len(points) < SMOOTHED_FROM:
        return [Curve(name, points, "train")]
    return [
        Curve(f"{name} per step", points, "raw"),
        Curve(f"{name}, smoothed", smooth(points), "train"),
    ]


def _resumes(steps: Sequence[Record]) -> list[Mark]:
    return [
        Mark(number["first"], f"attempt {number['attempt']}") for number in _attempts(steps)[1:]
    ]


def _points(records: Sequence[Record], field: str) -> list[Point]:
    return [(r["step"], r[field]) for r in records if r.get(field) is not None]


def _attempts(steps: Sequence[Record]) -> list[dict[str, int]]:
    """Return, for each attempt that did steps, its first and last one that counted."""
    attempts: list[dict[str, int]] = []
    for record in steps:
        if not attempts or attempts[-1]["attempt"] != record["attempt"]:
            attempts.append({"attempt": record["attempt"], "first": record["step"]})
        attempts[-1]["last"] = record["step"]
    return attempts


def _tiles(steps: Sequence[Record], facts: RunFacts) -> list[tuple[str, str]]:
    """Return the figures at the top: label and value."""
    summary = facts.summary
    seconds = sum(record["seconds"] for record in steps)
    rates = [record["tokens_per_second"] for record in steps if record["tokens_per_second"]]
    tiles = [("Final training loss", f"{summary.final_loss:.4f}")]
    if summary.final_reward is not None:
        tiles.append(("Final mean reward", f"{summary.final_reward:.4f}"))
    if summary.eval_loss is not None:
        tiles.append(("Eval loss, published", f"{summary.eval_loss:.4f}"))
    tiles += [
        ("Steps", f"{summary.steps:,}"),
        ("Learned tokens", short(summary.supervised_tokens)),
        ("Time in steps", _duration(seconds)),
    ]
    if rates:
        tiles.append(("Tokens per second, median", f"{statistics.median(rates):,.0f}"))
    return tiles


def _memory(estimate: MemoryEstimate) -> list[dict[str, Any]]:
    """Return the parts of the estimate that are not nothing, with their share of the whole."""
    parts = estimate.model_dump(exclude={"available"})
    return [
        {"name": name, "gib": size / GIB, "percent": 100 * size / estimate.total}
        for name, size in parts.items()
        if size > 0
    ]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
