"""Line charts and a timeline as inline SVG, coloured by the page's own style sheet (light and dark)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from slicestream.figures.facts import Record

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 16, 46
COLOURS = 4  # classes line-0 … line-3 of the style sheet


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """Labels of a chart, and the range of its vertical axis where it is fixed."""

    title: str
    x_label: str
    y_label: str
    y_range: tuple[float, float] | None = None


def line_chart(lines: Mapping[str, Points], axes: Axes) -> Markup:
    """Return an SVG of named lines, each a sequence of (x, y); Markup of nothing where there is no point."""
    points = [point for line in lines.values() for point in line]
    if not points:
        return Markup("")
    x_ticks = _ticks(min(x for x, _ in points), max(x for x, _ in points))
    low, high = axes.y_range or (min(y for _, y in points), max(y for _, y in points))
    y_ticks = _ticks(low, high)
    left, right, bottom, top = x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (y - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    parts = [_grid(place, x_ticks, y_ticks), _labels(axes)]
    for number, (name, line) in enumerate(lines.items()):
        style = Markup("line line-{}").format(number % COLOURS)
        spots = [place(x, y) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(Markup('<polyline class="{}" points="{}"><title>{}</title></polyline>').format(style, path, name))
        if len(spots) <= 12:
            dots = (Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(style, x, y) for x, y in spots)
            parts.append(Markup("").join(dots))
    frame = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>{}')
    return frame.format(WIDTH, HEIGHT, axes.title, Markup("").join(parts), _legend(list(lines)))


def history_charts(history: Mapping[str, Sequence[float | None]]) -> list[Markup]:
    """Return the training curves: losses in one chart, scores in [0, 1] (IoU, Dice) in another."""
    count = max((len(column) for column in history.values()), default=0)
    epochs = history.get("epoch") or [float(n) for n in range(1, count + 1)]
    losses, scores = {}, {}
    for name, column in history.items():
        line = [(x, y) for x, y in zip(epochs, column, strict=True) if x is not None and y is not None]
        readable = name.replace("_", " ").replace("iou", "IoU").replace("dice", "Dice")
        if "loss" in name:
            losses[readable] = line
        elif "iou" in name or "dice" in name:
            scores[readable] = line
    charts = (
        line_chart(losses, Axes(title="Loss by epoch", x_label="epoch", y_label="loss")),
        line_chart(scores, Axes(title="Agreement by epoch", x_label="epoch", y_label="IoU, Dice", y_range=(0.0, 1.0))),
    )
    return [chart for chart in charts if chart]


def timeline(records: Sequence[Record]) -> list[tuple[float, float]]:
    """Return where each record's bar begins and how long it is, in percent of the whole run."""
    if not records:
        return []
    begin, end = min(r.start for r in records), max(r.end for r in records)
    whole_s = max((end - begin).total_seconds(), 1e-3)
    bars = []
    for record in records:
        start = 100 * (record.start - begin).total_seconds() / whole_s
        length = 100 * max((record.end - record.start).total_seconds(), 0.0) / whole_s
        bars.append((min(start, 99.4), max(min(length, 100 - start), 0.6)))
    return bars


def _ticks(low: float, high: float) -> list[float]:
    """Return 3 to 7 round numbers from at or under `low` to at or over `high`."""
    span = high - low or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * n, 12) for n in range(first, max(last, first + 1) + 1)]


def _grid(place: object, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> Markup:
    assert callable(place)
    parts = []
    for y in y_ticks:
        _, down = place(x_ticks[0], y)
        parts.append(
            Markup(
                '<path class="grid" d="M{0} {2:.1f}H{1}"/><text class="tick end" x="{3}" y="{4:.1f}">{5:g}</text>'
            ).format(LEFT, WIDTH - RIGHT, down, LEFT - 8, down + 4, y)
        )
    for x in x_ticks:
        across, down = place(x, y_ticks[0])
        parts.append(Markup('<text class="tick middle" x="{:.1f}" y="{:.1f}">{:g}</text>').format(across, down + 18, x))
    return Markup("").join(parts)


def _labels(axes: Axes) -> Markup:
    return Markup(
        '<text class="axis middle" x="{:.0f}" y="{}">{}</text>'
        '<text class="axis middle" transform="translate(14 {:.0f}) rotate(-90)">{}</text>'
    ).format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, axes.x_label, (TOP + HEIGHT - BOTTOM) / 2, axes.y_label)


def _legend(names: Sequence[str]) -> Markup:
    if len(names) < 2:
        return Markup("")
    entries = (
        Markup('<span><i class="key key-{}"></i>{}</span>').format(number % COLOURS, name)
        for number, name in enumerate(names)
    )
    return Markup('<p class="legend">{}</p>').format(Markup("").join(entries))
