"""How far a job is, read from the lines that it prints."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TRAIN = re.compile(r"train: epoch (\d+)/(\d+), (.*), (\d+):(\d\d):(\d\d) left at most")
_INFER = re.compile(r"infer: volume (\d+)/(\d+), (\d+) slices: (?:(\d+) done|\d+ candidates), (.*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Share done, 0 to 1; seconds left as the job itself says, None if it does not; the rest of its line."""

    share: float
    left_s: float | None
    text: str


def parse(line: str) -> Progress | None:
    """Return what a line says of a job's progress, None for other lines."""
    if found := _TRAIN.search(line):
        epoch, epochs, hours, minutes, seconds = (int(found[group]) for group in (1, 2, 4, 5, 6))
        left = 3600 * hours + 60 * minutes + seconds
        return Progress(share=epoch / epochs, left_s=left, text=f"epoch {epoch}/{epochs}, {found[3]}")
    if found := _INFER.search(line):
        volume, volumes, slices = (int(found[group]) for group in (1, 2, 3))
        within = int(found[4]) / slices if found[4] else 1.0
        return Progress(
            share=(volume - 1 + within) / volumes, left_s=None, text=f"volume {volume}/{volumes}, {found[5]}"
        )
    return None


def last(text: str) -> Progress | None:
    """Return what the last telling line of a log says."""
    return next(filter(None, map(parse, reversed(text.splitlines()))), None)
