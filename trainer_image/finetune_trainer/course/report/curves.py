"""Curves as SVG: axes, marks and lines, few enough points for a small page.

Colours and fonts are the page's, by CSS class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

MOST_POINTS = 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 14, 26  # margins of the plot, in the view box's units
TICK_STEPS = (1, 2, 2.5, 5, 10)

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """One line. `style` is its CSS class; with `dots` each point is marked."""

    name: str
    points: Sequence[Point]
    style: str
    dots: bool = False


@dataclass(frozen=True)
class Mark:
    """A vertical line at a step, with a word."""

    step: float
    label: str


@dataclass(frozen=True)
class Axes:
    """Where values lie in the view box."""

    width: int
    height: int
    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, point: Point) -> Point:
        """Return a point's place, in the view box's units."""
        (x0, x1), (y0, y1) = self.x, self.y
        inner_width, inner_height = self.width - LEFT - RIGHT, self.height - TOP - BOTTOM
        across = (point[0] - x0) / (x1 - x0) * inner_width
        up = (point[1] - y0) / (y1 - y0) * inner_height
        return LEFT + across, self.height - BOTTOM - up


def chart(
    title: str,
    curves: Sequence[Curve],
    marks: Sequence[Mark] = (),
    *,
    width: int = 440,
    height: int = 230,
    from_zero: bool = False,
) -> Markup:
    """Return an `<svg>` of curves over steps; empty where no curve has a point."""
    curves = [Curve(c.name, thin(c.points), c.style, c.dots) for c in curves if c.points]
    if not curves:
        return Markup()
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points]
    y_ticks = ticks(min(0.0, *ys) if from_zero else min(ys), max(ys), 5)
    x0 = min(xs)
    axes = Axes(width, height, (x0, max(*xs, x0 + 1)), (y_ticks[0], y_ticks[-1]))
    inside = [tick for tick in ticks(*axes.x, 6) if axes.x[0] <= tick <= axes.x[1]]
    parts = [
        *(_row(axes, tick) for tick in y_ticks),
        *(_column(axes, tick) for tick in inside),
        *(_mark(axes, mark, line) for line, mark in enumerate(marks)),
        *(_line(axes, curve) for curve in curves),
    ]
    label = escape(_words(title, curves))
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
    return Markup(f"{head}{''.join(parts)}</svg>")  # noqa: S704 - numbers and escaped words only


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Return at most `most` points: means over runs of neighbours. The last one stays as it is."""
    if len(points) <= most:
        return list(points)
    *body, last = points
    size = -(-len(body) // (most - 1))
    runs = [body[start : start + size] for start in range(0, len(body), size)]
    return [*(_mean(run) for run in runs), last]


def smooth(points: Sequence[Point], weight: float = 0.9) -> list[Point]:
    """Return the exponential moving average, without its bias towards zero at the start."""
    average, smoothed = 0.0, []
    for count, (x, y) in enumerate(points, start=1):
        average = weight * average + (1 - weight) * y
        smoothed.append((x, average / (1 - weight**count)))
    return smoothed


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return round values, evenly spaced, that enclose low and high."""
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        spread = abs(high) / 2 or 1.0
        low, high = low - spread, high + spread
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in TICK_STEPS if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def short(value: float) -> str:
    """Return a number in a few characters: 1.2k, 0.05, 2e-4."""
    if value == 0:
        return "0"
    for size, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= size:
            return f"{value / unit:.4g}{letter}"
    if abs(value) < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"


def _mean(run: Sequence[Point]) -> Point:
    return sum(x for x, _ in run) / len(run), sum(y for _, y in run) / len(run)


def _line(axes: Axes, curve: Curve) -> str:
    placed = [axes.place(point) for point in curve.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    dots: Iterable[Point] = placed if curve.dots or len(placed) == 1 else ()
    circles = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in dots)
    return f'<g class="{curve.style}"><polyline points="{path}"/>{circles}</g>'


def _row(axes: Axes, tick: float) -> str:
    _, y = axes.place((axes.x[0], tick))
    return (
        f'<line class="grid" x1="{LEFT}" x2="{axes.width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 7}" y="{y + 3.5:.1f}" text-anchor="end">{short(tick)}</text>'
    )


def _column(axes: Axes, tick: float) -> str:
    x, _ = axes.place((tick, axes.y[0]))
    anchor = "end" if x > axes.width - 2 * RIGHT else "middle"
    return f'<text x="{x:.1f}" y="{axes.height - 8}" text-anchor="{anchor}">{short(tick)}</text>'


def _mark(axes: Axes, mark: Mark, line: int) -> str:
    """Draw a mark; words of neighbours stand on other lines, so that they do not meet."""
    if not axes.x[0] <= mark.step <= axes.x[1]:
        return ""
    x, _ = axes.place((mark.step, axes.y[0]))
    right = x > axes.width * 0.75
    anchor, shift = ("end", -4) if right else ("start", 4)
    return (
        f'<g class="mark"><line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" '
        f'y2="{axes.height - BOTTOM}"/><text x="{x + shift:.1f}" y="{TOP + 9 + 14 * (line % 3)}" '
        f'text-anchor="{anchor}">{escape(mark.label)}</text></g>'
    )


def _words(title: str, curves: Sequence[Curve]) -> str:
    """Say the curves for those who do not see them."""
    said = [
        f"{c.name} from {short(c.points[0][1])} to {short(c.points[-1][1])}, "
        f"lowest {short(min(y for _, y in c.points))}"
        for c in curves
    ]
    return f"{title} over steps: {'; '.join(said)}."
