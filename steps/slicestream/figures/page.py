"""The report: one HTML file without any outside resource, from facts, charts and overlays."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from slicestream import RESEARCH_ONLY, __version__
from slicestream.figures.charts import Axes, history_charts, line_chart, timeline
from slicestream.figures.facts import OVERLAPS, Facts, Record
from slicestream.figures.gallery import Picture
from slicestream.figures.kpis import kpis
from slicestream.figures.nodules import STATUSES

ROWS_SHOWN = 400  # of the nodule table; the whole of it is in nodules.csv
PLURALS = {
    "true_positive": "true positives",
    "false_positive": "false positives",
    "missed": "missed",
    "candidate": "candidates",
}
SIZES = {
    "all": "all sizes",
    "under_3": "under 3 mm",
    "3-10": "3 to under 10 mm",
    "10-30": "10 to under 30 mm",
    "30+": "30 mm and over",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """All that a report may show; what a run lacks is None or empty and its section is left out."""

    title: str
    made: datetime
    records: Sequence[Record]
    nodules: Sequence[Facts]
    pictures: Sequence[Picture]
    overlays: int
    split: Sequence[Facts] = ()
    history: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    metrics: Facts | None = None
    card: Facts | None = None


def render(content: Content) -> str:
    """Return the page. Every text is escaped; nothing in it reaches out of the file."""
    environment = Environment(
        loader=PackageLoader("slicestream.figures", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _FILTERS
    return environment.get_template("report.html.j2").render(
        content=content,
        version=__version__,
        notice=RESEARCH_ONLY,
        overlaps=OVERLAPS,
        sensitivity=_sensitivity(content.metrics),
        counts=_counts(content.nodules),
        compared=any(row["status"] != "candidate" for row in content.nodules),
        series=sorted({(row["patient"], row["series"]) for row in content.nodules}),
        rows=content.nodules[:ROWS_SHOWN],
        history_charts=history_charts(content.history),
        froc_chart=_froc(content.metrics),
        kpis=kpis(content.records),
        runs=list(zip(content.records, timeline(content.records), strict=True)),
        versions=_versions(content.records),
        models=_models(content.records),
        # the figures of the evaluation stand in their own section
        card=_flat({name: fact for name, fact in (content.card or {}).items() if name != "evaluation"}),
    )


def _sensitivity(metrics: Facts | None) -> list[tuple[str, int, Facts]]:
    """Return (size in words, number of reference nodules, {value, low, high}) for each size."""
    if metrics is None:
        return []
    nodules = metrics["nodules"]
    counts, found = {"all": nodules["count"], **nodules["counts"]}, nodules["intervals"]["sensitivity"]
    return [(words, int(counts[size]), found[size]) for size, words in SIZES.items()]


def _froc(metrics: Facts | None) -> Markup:
    points = [point for point in metrics["froc"] if point["sensitivity"] is not None] if metrics else []
    line = [(float(point["false_positives_per_scan"]), float(point["sensitivity"])) for point in points]
    axes = Axes(title="FROC", x_label="false positives per scan", y_label="sensitivity", y_range=(0.0, 1.0))
    return line_chart({"sensitivity": line}, axes)


def _counts(nodules: Sequence[Facts]) -> dict[str, int]:
    """Return how many rows there are of each status, by its plural; those without a row are left out."""
    counts = Counter(row["status"] for row in nodules)
    return {PLURALS[status]: counts[status] for status in STATUSES if counts[status]}


def _versions(records: Sequence[Record]) -> list[tuple[str, str]]:
    found: dict[str, set[str]] = {}
    for record in records:
        for name, value in record.versions.items():
            found.setdefault(name, set()).add(value)
    return [(name, ", ".join(sorted(values))) for name, values in sorted(found.items())]


def _models(records: Sequence[Record]) -> list[str]:
    """Return the content hashes of the models that the run used or made."""
    files = (item for record in records for item in (*record.inputs.items(), *record.outputs.items()))
    return sorted({content_hash for name, content_hash in files if name.endswith(".onnx")})


def _flat(card: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Return the facts of a nested card as (dotted name, text)."""
    facts: list[tuple[str, str]] = []
    for name, value in card.items():
        if isinstance(value, Mapping):
            facts += _flat(value, f"{before}{name}: ")
        else:
            text = ", ".join(_text(v) for v in value) if isinstance(value, list) else _text(value)
            facts.append((f"{before}{name}".replace("_", " "), text))
    return facts


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _number(value: float | None, decimals: int = 2) -> str:
    return "–" if value is None else f"{float(value):,.{decimals}f}".replace(",", "\u202f")


def _range(entry: Facts, decimals: int = 2) -> str:
    if entry["low"] is None or entry["high"] is None:
        return ""
    return f"{float(entry['low']):.{decimals}f} to {float(entry['high']):.{decimals}f}"


def _percent(entry: Facts) -> str:
    if entry["low"] is None or entry["high"] is None:
        return ""
    return f"{100 * float(entry['low']):.0f} to {100 * float(entry['high']):.0f} %"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _digest(hashes: Mapping[str, str]) -> str:
    """Return 12 hex digits that stand for a set of files: SHA-256 over their names and content hashes."""
    lines = "\n".join(f"{name} {value}" for name, value in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:12] if hashes else "–"


def _clock(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"


def _per(unit: str) -> str:
    """Return the singular of a unit as the records write it: slices → slice, series → series."""
    return unit if unit in ("", "series") else unit.removesuffix("s")


_FILTERS: dict[str, Callable[..., Any]] = {
    "number": _number,
    "range": _range,
    "percent": _percent,
    "duration": _duration,
    "size": _size,
    "digest": _digest,
    "clock": _clock,
    "per": _per,
}
