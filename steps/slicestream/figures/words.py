"""How the page writes numbers, ranges, times, sizes and hashes: Jinja filters."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from slicestream.volumes.documents import Facts


def text(value: Any) -> str:
    """Return a fact as text; a list as its parts."""
    if isinstance(value, list | tuple):
        return ", ".join(text(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
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


def _measured(value: float | None, unit: str) -> str:
    """Return a KPI: seconds, bytes, joules, or a plain ratio where the unit is empty."""
    if value is None:
        return "–"
    if unit == "J":
        return f"{value / 3600:.2f} Wh"
    if unit == "B":
        return _size(round(value))
    return _duration(value) if unit == "s" else _number(value)


def _digest(hashes: Mapping[str, str]) -> str:
    """Return 12 hex digits that stand for a set of files: SHA-256 over their names and content hashes."""
    lines = "\n".join(f"{name} {value}" for name, value in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:12] if hashes else "–"


def _clock(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"


def _minus(number: str) -> str:
    """Return a number with a minus as wide as a figure."""
    return number.replace("-", "−")


def _per(unit: str) -> str:
    """Return the singular of a unit as the records write it: slices → slice, series → series."""
    return unit if unit in ("", "series") else unit.removesuffix("s")


FILTERS: dict[str, Callable[..., Any]] = {
    "text": text,
    "number": _number,
    "range": _range,
    "percent": _percent,
    "duration": _duration,
    "size": _size,
    "measured": _measured,
    "digest": _digest,
    "clock": _clock,
    "per": _per,
    "minus": _minus,
}
