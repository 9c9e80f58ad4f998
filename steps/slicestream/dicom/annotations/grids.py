"""From the grid that a mask was drawn on to the grid of the series, by the nearest neighbour."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from slicestream.dicom.annotations.drawing import SeriesPlace

LEAST_INSIDE = 0.9  # of an object's voxels within the series; with less, file and series do not belong together
_SAME_GRID = 0.1  # voxels; within that, rounding of headers
_TIE = 1e-6  # a voxel centre midway between two neighbours goes to the one of the higher index


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """Parallel planes of a mask where they lie in the patient.

    Attributes
    ----------
    planes : (plane, row, column), bool, in the order of their places along the first direction
    first_lps_mm : (plane, 3), centre of each plane's first voxel
    direction_lps : (3, 3), unit vectors along which plane, row and column index grow
    spacing_mm : how far a plane reaches along the first direction (half of it to each side), row and column spacing
    """

    planes: NDArray[np.bool_]
    first_lps_mm: NDArray[np.float64]
    direction_lps: NDArray[np.float64]
    spacing_mm: tuple[float, float, float]


def index_of(place: SeriesPlace, points_lps_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (..., (slice, row, column)) of points (..., 3), in voxels from the first voxel's centre."""
    steps = np.asarray(place.geometry.direction_lps) * np.asarray(place.geometry.spacing_mm)[:, None]
    offset = points_lps_mm - np.asarray(place.origin_lps_mm, np.float64)
    return np.asarray(offset @ np.linalg.inv(steps))


def point_of(place: SeriesPlace, index: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the patient coordinates of one index (slice, row, column)."""
    x, y, z = (float(n) for n in np.asarray(place.origin_lps_mm) + place.geometry.offset_lps_mm(index))
    return (x, y, z)


def is_inside(place: SeriesPlace, index: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which indices (..., 3) lie within the voxels of the series."""
    within = (index >= -0.5 - _TIE) & (index <= np.asarray(place.geometry.shape) - 0.5 + _TIE)
    return np.asarray(within.all(axis=-1))


def is_same_grid(stack: Stack, place: SeriesPlace) -> bool:
    """Return whether every voxel centre of the planes lies on one of the series' grid, whatever the order of axes."""
    corner = index_of(place, stack.first_lps_mm)
    origin = np.asarray(place.origin_lps_mm)
    in_plane = stack.direction_lps[1:] * np.asarray(stack.spacing_mm[1:])[:, None]
    steps = index_of(place, in_plane + origin)  # (row, column) of the stack in index steps of the series
    whole = np.round(steps)
    if not np.array_equal(np.abs(whole).sum(axis=1), [1, 1]) or (np.abs(whole).sum(axis=0) > 1).any():
        return False
    extent = np.array(stack.planes.shape[1:]) - 1
    off = np.abs(corner - np.round(corner)).max() + (np.abs(steps - whole) * extent[:, None]).sum(axis=0).max()
    return bool(off <= _SAME_GRID)


def cropped(stack: Stack) -> Stack:
    """Return the smallest part that holds every marked voxel. At least one must be."""
    planes = np.flatnonzero(stack.planes.any(axis=(1, 2)))
    rows, columns = (np.flatnonzero(stack.planes.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    moved = stack.direction_lps[1] * (rows[0] * stack.spacing_mm[1])
    moved = moved + stack.direction_lps[2] * (columns[0] * stack.spacing_mm[2])
    kept = stack.planes[planes, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return replace(stack, planes=kept, first_lps_mm=stack.first_lps_mm[planes] + moved)


def share_inside(stack: Stack, place: SeriesPlace) -> float:
    """Return the share of the marked voxels whose centres lie within the series. At least one must be marked."""
    steps = stack.direction_lps[1:] * np.asarray(stack.spacing_mm[1:])[:, None]
    inside = total = 0
    for plane, first in zip(stack.planes, stack.first_lps_mm, strict=True):
        points = first + np.argwhere(plane) @ steps
        inside += int(is_inside(place, index_of(place, points)).sum())
        total += len(points)
    return inside / total


def centre_of(stack: Stack) -> NDArray[np.float64]:
    """Return the mean of the marked voxels' centres in patient coordinates. At least one must be marked."""
    steps = stack.direction_lps[1:] * np.asarray(stack.spacing_mm[1:])[:, None]
    counts = stack.planes.sum(axis=(1, 2))
    total = (stack.first_lps_mm * counts[:, None]).sum(axis=0)
    _, rows, columns = np.nonzero(stack.planes)
    total = total + rows.sum() * steps[0] + columns.sum() * steps[1]
    return np.asarray(total / counts.sum())


def voxels_of(stack: Stack, place: SeriesPlace) -> NDArray[np.intp]:
    """Return the flat indices, ascending, of the series' voxels whose centres lie in a marked voxel of the stack.

    Each voxel of the series asks for the voxel of the stack that its centre lies in (nearest neighbour), so that no
    hole arises whatever the two spacings.
    """
    shape = place.geometry.shape
    low, high = _box(stack, place)
    if (low >= high).any():
        return np.zeros(0, np.intp)
    ordered = _Ordered(stack, place)
    rows, columns = np.arange(low[1], high[1]), np.arange(low[2], high[2])
    found = [np.zeros(0, np.intp)]
    for index in range(int(low[0]), int(high[0])):
        row, column = np.nonzero(ordered.marked(index, rows, columns))
        found.append((index * shape[1] + rows[row]) * shape[2] + columns[column])
    return np.concatenate(found)


class _Ordered:
    """A stack's planes by their distance along the stack's first direction, asked by voxels of a series."""

    def __init__(self, stack: Stack, place: SeriesPlace) -> None:
        first = stack.first_lps_mm @ stack.direction_lps.T  # (plane, (along plane, row, column)) in mm
        order = np.argsort(first[:, 0], kind="stable")
        self._planes, self._first = stack.planes[order], first[order]
        self._spacing = stack.spacing_mm
        self._lower = self._first[:, 0] - self._spacing[0] * (0.5 + _TIE)
        steps = np.asarray(place.geometry.direction_lps) * np.asarray(place.geometry.spacing_mm)[:, None]
        self._steps = stack.direction_lps @ steps.T  # mm along the stack's axes for a step along each of the series'
        self._origin = stack.direction_lps @ np.asarray(place.origin_lps_mm, np.float64)

    def marked(self, index: int, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return (row, column): which of these voxels of slice `index` are marked."""
        along = self._along(0, index, rows, columns)
        nearest = np.searchsorted(self._lower, along, side="right") - 1
        valid = nearest >= 0
        valid &= along - self._first[nearest, 0] < self._spacing[0] * (0.5 - _TIE)
        marked = np.zeros(valid.shape, np.bool_)
        if not valid.any():
            return marked
        plane = nearest[valid]
        where = [plane]
        inside = np.ones(len(plane), np.bool_)
        for axis in (1, 2):
            offset = self._along(axis, index, rows, columns)[valid] - self._first[plane, axis]
            step = np.floor(offset / self._spacing[axis] + 0.5 + _TIE).astype(np.intp)
            inside &= (step >= 0) & (step < self._planes.shape[axis])
            where.append(step)
        hit = np.zeros(len(plane), np.bool_)
        hit[inside] = self._planes[tuple(steps[inside] for steps in where)]
        marked[valid] = hit
        return marked

    def _along(self, axis: int, index: int, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float64]:
        per_slice, per_row, per_column = self._steps[axis]
        start = self._origin[axis] + per_slice * index
        return np.asarray(start + per_row * rows[:, None] + per_column * columns[None, :])


def _box(stack: Stack, place: SeriesPlace) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first index and the one after the last, per axis of the series, that the stack can reach."""
    between, row_mm, column_mm = stack.spacing_mm
    rows, columns = stack.planes.shape[1:]
    corners = np.array(
        [
            first + p * between * stack.direction_lps[0] + r * row_mm * stack.direction_lps[1] + c * column_mm * axis
            for first in stack.first_lps_mm
            for axis in (stack.direction_lps[2],)
            for p in (-0.5, 0.5)
            for r in (-0.5, rows - 0.5)
            for c in (-0.5, columns - 0.5)
        ]
    )
    index = index_of(place, corners)
    shape = np.array(place.geometry.shape)
    low = np.clip(np.floor(index.min(axis=0)), 0, shape).astype(np.intp)
    high = np.clip(np.ceil(index.max(axis=0)) + 1, 0, shape).astype(np.intp)
    return low, high
