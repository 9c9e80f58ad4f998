"""Closed outlines to the pixels whose centres they enclose.

The rule: a pixel is marked where its centre lies inside by the even-odd rule over all outlines of the plane together
(an outline within another is a hole, whether drawn apart, by XOR, or joined by a keyhole), or on an outline, within
`ON_OUTLINE` pixels. Programs that trace the pixels of a mask put the outline's points on pixel centres: these belong to
the object, and with the even-odd rule alone it would lose its rim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

ON_OUTLINE = 0.01  # pixels: half of the last digit of a coordinate written as 0.01 mm, at 0.5 mm per pixel
_AT_ONCE = 1 << 20  # crossings of edges and pixel rows in memory


def filled(outlines: Sequence[NDArray[np.float64]], shape: tuple[int, int], *, rim: bool = True) -> NDArray[np.bool_]:
    """Return (row, column): which pixels the outlines mark; each (point, (row, column)), pixel centres at integers.

    `rim`: mark centres on an outline too. An outline of one or two points has a rim and no inside.
    """
    if not outlines:
        return np.zeros(shape, np.bool_)
    start = np.concatenate(outlines)
    end = np.concatenate([np.roll(outline, -1, axis=0) for outline in outlines])
    marked = _even_odd(start, end, shape)
    if rim:
        for row, column in _on_edges(start, end, shape):
            marked[row, column] = True
    return marked


def crossing(outlines: Sequence[NDArray[np.float64]], shape: tuple[int, int]) -> bool:
    """Return whether two outlines share some of their inside, but neither lies within the other."""
    boxes = [_box(outline, shape) for outline in outlines]
    for n, (low, high) in enumerate(boxes):
        for m, (low_m, high_m) in enumerate(boxes[:n]):
            if (np.maximum(low, low_m) >= np.minimum(high, high_m)).any():
                continue
            corner = np.minimum(low, low_m)
            rows, columns = (int(k) for k in np.maximum(high, high_m) - corner)
            a, b = (filled([outlines[k] - corner], (rows, columns), rim=False) for k in (n, m))
            if 0 < (a & b).sum() < min(a.sum(), b.sum()):
                return True
    return False


def _box(outline: NDArray[np.float64], shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    low = np.clip(np.floor(outline.min(axis=0)), 0, shape).astype(np.int64)
    high = np.clip(np.ceil(outline.max(axis=0)) + 1, 0, shape).astype(np.int64)
    return low, high


def _even_odd(start: NDArray[np.float64], end: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Mark centres with an odd number of edges to their left (half-open edges: a corner counts once)."""
    rows, columns = shape
    low = np.clip(np.ceil(np.minimum(start[:, 0], end[:, 0])), 0, rows).astype(np.int64)
    high = np.clip(np.ceil(np.maximum(start[:, 0], end[:, 0])), 0, rows).astype(np.int64)
    toggles = np.zeros(rows * (columns + 1), np.int64)
    for edge, row in _steps(low, high):
        a, b = start[edge], end[edge]
        across = a[:, 1] + (row - a[:, 0]) * (b[:, 1] - a[:, 1]) / (b[:, 0] - a[:, 0])
        first = np.clip(np.floor(across) + 1, 0, columns).astype(np.int64)
        toggles += np.bincount(row * (columns + 1) + first, minlength=len(toggles))
    return np.asarray(np.cumsum(toggles.reshape(rows, columns + 1), axis=1)[:, :columns] % 2 == 1)


def _on_edges(
    start: NDArray[np.float64], end: NDArray[np.float64], shape: tuple[int, int]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield rows and columns of the pixel centres that lie on an edge."""
    along = np.abs(end - start).argmax(axis=1)  # the axis on which an edge is longest: one centre per step of it
    pick = np.arange(len(start))
    a, b = start[pick, along], end[pick, along]
    size = np.array(shape)[along]
    low = np.clip(np.ceil(np.minimum(a, b) - ON_OUTLINE), 0, size).astype(np.int64)
    high = np.clip(np.floor(np.maximum(a, b) + ON_OUTLINE) + 1, 0, size).astype(np.int64)
    for edge, step in _steps(low, high):
        p, d, axis = start[edge], end[edge] - start[edge], along[edge]
        n = np.arange(len(edge))
        length = d[n, axis]
        share = np.clip((step - p[n, axis]) / np.where(length == 0, 1, length), 0, 1)
        centre = np.round(p + share[:, None] * d)
        centre[n, axis] = step
        nearest = np.clip(((centre - p) * d).sum(axis=1) / np.maximum((d * d).sum(axis=1), 1e-300), 0, 1)
        off = np.linalg.norm(centre - p - nearest[:, None] * d, axis=1)
        hit = (off <= ON_OUTLINE) & ((centre >= 0) & (centre < shape)).all(axis=1)
        row, column = centre[hit].astype(np.int64).T
        yield row, column


def _steps(low: NDArray[np.int64], high: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield each whole number in [low, high) of every edge, with its edge, some at once."""
    counts = np.maximum(high - low, 0)
    ends = np.cumsum(counts)
    first = 0
    while first < len(counts):
        done = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, done + _AT_ONCE, side="right")), first + 1)
        some = counts[first:last]
        edge = np.repeat(np.arange(first, last), some)
        before = np.repeat(np.cumsum(some) - some, some)
        yield edge, low[edge] + np.arange(len(edge)) - before
        first = last
