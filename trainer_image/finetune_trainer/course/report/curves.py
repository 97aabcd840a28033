"""Curves as the page draws them: placed in a view box, few enough points for a small page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

MOST_POINTS = 240
PLOT = LEFT, RIGHT, TOP, BOTTOM = 64, 428, 14, 170  # its edges, in the view box's units

Point = tuple[float, float]  # step and value
Mark = tuple[float, str]  # a step and what is said of it


@dataclass(frozen=True)
class Curve:
    """One line. `style` is its CSS class; with `dots` each point is marked."""

    name: str
    points: Sequence[Point]
    style: str = "train"
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """Curves over steps, from their lowest value to their highest. Made by `chart`."""

    title: str
    note: str
    curves: Sequence[Curve]
    marks: Sequence[Mark]
    x: Point  # the first step and the last
    y: Point  # the lowest value and the highest

    def across(self, step: float) -> float:
        """Return where a step stands in the view box."""
        first, last = self.x
        return LEFT + (step - first) / (last - first or 1) * (RIGHT - LEFT)

    def down(self, value: float) -> float:
        """Return where a value stands in the view box."""
        lowest, highest = self.y
        return BOTTOM - (value - lowest) / (highest - lowest or 1) * (BOTTOM - TOP)

    @property
    def words(self) -> str:
        """Return the curves for those who do not see them."""
        said = [
            f"{curve.name} from {short(curve.points[0][1])} to {short(curve.points[-1][1])}, "
            f"lowest {short(min(value for _, value in curve.points))}"
            for curve in self.curves
        ]
        return f"{self.title} over steps: {'; '.join(said)}."


def chart(
    title: str, curves: Sequence[Curve], marks: Sequence[Mark] = (), note: str = ""
) -> Chart | None:
    """Return a chart of the curves that have points; None where none has."""
    drawn = [Curve(c.name, thin(c.points), c.style, c.dots) for c in curves if c.points]
    if not drawn:
        return None
    steps, values = zip(*(point for curve in drawn for point in curve.points), strict=True)
    x, y = (min(steps), max(steps)), (min(values), max(values))
    return Chart(title, note, drawn, [mark for mark in marks if x[0] <= mark[0] <= x[1]], x, y)


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Return at most `most` points: means over runs of neighbours. The last one stays as it is."""
    if len(points) <= most:
        return list(points)
    *body, last = points
    size = -(-len(body) // (most - 1))
    runs = [body[start : start + size] for start in range(0, len(body), size)]
    return [*((fmean(x for x, _ in run), fmean(y for _, y in run)) for run in runs), last]


def smooth(points: Sequence[Point], weight: float = 0.9) -> list[Point]:
    """Return the exponential moving average, without its bias towards zero at the start."""
    average, smoothed = 0.0, []
    for count, (x, y) in enumerate(points, start=1):
        average = weight * average + (1 - weight) * y
        smoothed.append((x, average / (1 - weight**count)))
    return smoothed


def short(value: float) -> str:
    """Return a number in a few characters: 12,500, 0.05, 1.25e-05."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
