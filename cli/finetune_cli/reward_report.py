"""What `finetune reward test` found, and how it is shown."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from finetune_cli.console import OUT, print_out, print_warning
from finetune_cli.reward_files import Completions
from finetune_rewards.scores.samples import Answer, text_of

SHOWN = 50  # completions in the table
LEAST_WIDTH, MOST_WIDTH = 12, 40  # characters of a completion


@dataclass(frozen=True)
class Column:
    """One reward's answers; `mean` and `std` are of what it scored, None if that is nothing."""

    name: str
    answer: Answer
    python: bool = False
    gate: bool = False

    @property
    def scores(self) -> list[float]:
        """Return what was scored."""
        return [item.score for item in self.answer.items if item.score is not None]

    @property
    def errors(self) -> list[str]:
        """Return the texts of what failed."""
        return [item.error for item in self.answer.items if item.error is not None]

    @property
    def equal(self) -> bool:
        """Tell whether several scores are all one where they are to differ; a gate's are not."""
        return len(self.scores) > 1 and len(set(self.scores)) == 1 and not self.gate

    @property
    def raised(self) -> bool:
        """Tell whether several completions share what may be the fault of one."""
        errors = self.errors
        alike = len(errors) == len(self.answer.items) > 1 and len(set(errors)) == 1
        return self.python and alike

    def to_json(self) -> dict[str, Any]:
        """Return the reward in the document of `--json`."""
        scores = self.scores
        return {
            "name": self.name,
            "mean": statistics.fmean(scores) if scores else None,
            "std": statistics.pstdev(scores) if scores else None,
            "min": min(scores, default=None),
            "max": max(scores, default=None),
            "scored": len(scores),
            "errors": len(self.errors),
            "abstentions": len(self.answer.items) - len(scores) - len(self.errors),
            "seconds": round(self.answer.seconds, 3),
        }


@dataclass(frozen=True)
class Report:
    """What the rewards said of all completions; a total is None where none of them scored."""

    completions: Completions
    columns: list[Column]
    totals: list[float | None]
    untried: list[str]

    @property
    def ok(self) -> bool:
        """Tell whether every reward scored something, and failed on nothing."""
        return all(column.scores and not column.errors for column in self.columns)

    @property
    def warnings(self) -> list[str]:
        """Return what would make a run learn less than its author hopes, or nothing."""
        found = [
            f"reward {column.name} abstained from every completion"
            for column in self.columns
            if not column.scores and not column.errors
        ]
        found += [
            f"reward {column.name} gives every completion the score {column.scores[0]:g}: "
            "by itself it teaches nothing"
            for column in self.columns
            if column.equal
        ]
        found += [
            f"reward {column.name}: what it raises for one completion costs all of the call: "
            "catch it in the function, and return None for that one"
            for column in self.columns
            if column.raised
        ]
        places = zip(self.completions.places, self.totals, strict=True)
        lost = sorted({number for (number, _), total in places if total is None})
        if lost:
            found.append(f"no total for completions of {_rows(lost)}: training leaves them out")
        return found + self._without_spread()

    def _without_spread(self) -> list[str]:
        groups: dict[int, list[float]] = {}
        for (number, _), total in zip(self.completions.places, self.totals, strict=True):
            if total is not None:
                groups.setdefault(number, []).append(total)
        several = {number: group for number, group in groups.items() if len(group) > 1}
        flat = [number for number, group in several.items() if len(set(group)) == 1]
        if not flat:
            return []
        return [f"all completions of {_rows(flat)} have one total: such a group teaches nothing"]

    def to_json(self) -> dict[str, Any]:
        """Return the document of `--json`."""
        answers = zip(*(column.answer.items for column in self.columns), strict=True)
        rows = [
            {
                "row": number,
                "completion": place,
                "total": total,
                "scores": {c.name: item.score for c, item in zip(self.columns, row, strict=True)},
                "errors": {
                    c.name: item.error
                    for c, item in zip(self.columns, row, strict=True)
                    if item.error is not None
                },
            }
            for (number, place), total, row in zip(
                self.completions.places, self.totals, answers, strict=True
            )
        ]
        return {
            "ok": self.ok,
            "rewards": [column.to_json() for column in self.columns],
            "untried": self.untried,
            "warnings": self.warnings,
            "rows": rows,
        }


def show(report: Report) -> None:
    """Print tables of completions and of rewards, then errors and warnings."""
    _show_completions(report)
    _show_rewards(report)
    for column in report.columns:
        for text in dict.fromkeys(column.errors):
            print_out(f"{column.name}: {column.errors.count(text)} x {text}")
    for name in report.untried:
        print_out(f"{name}: a model; it was left out, and of the total too")
    for warning in report.warnings:
        print_warning(f"warning: {warning}")


def _show_completions(report: Report) -> None:
    samples, places = report.completions.samples, report.completions.places[:SHOWN]
    table = _table()
    table.add_column("row", no_wrap=True)
    table.add_column("completion", min_width=LEAST_WIDTH, max_width=MOST_WIDTH)
    for name in (*(column.name for column in report.columns), "total"):
        table.add_column(escape(name), justify="right", no_wrap=True)
    for index, (number, _) in enumerate(places):
        words = " ".join(text_of(samples.completions[index]).split())
        shown = Text(words, no_wrap=True, overflow="ellipsis")  # the others leave it what is left
        cells = [_cell(column, index) for column in report.columns]
        table.add_row(str(number), shown, *cells, _number(report.totals[index]))
    OUT.print(table)
    if len(samples) > SHOWN:
        print_out(f"and {len(samples) - SHOWN:,} more; --json has all")


def _show_rewards(report: Report) -> None:
    table = _table()
    table.add_column("reward")
    for name in ("mean", "std", "min", "max", "abstained", "errors", "seconds"):
        table.add_column(name, justify="right")
    for column in report.columns:
        values = column.to_json()
        numbers = [_number(values[key]) for key in ("mean", "std", "min", "max")]
        counts = [str(values["abstentions"]), str(values["errors"])]
        table.add_row(escape(column.name), *numbers, *counts, f"{values['seconds']:.2f}")
    OUT.print(table)


def _table() -> Table:
    """Return a table that leaves a narrow terminal's room to what stands in it."""
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)


def _cell(column: Column, index: int) -> str:
    item = column.answer.items[index]
    return "[red]error[/red]" if item.error is not None else _number(item.score)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _rows(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
    return f"row{'s' if len(numbers) > 1 else ''} {shown}"
