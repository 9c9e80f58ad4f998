"""Shapes on a coarse grid, numpy and connected components only: reaching out, closing, holes, what touches the edge."""

from __future__ import annotations

from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

FLAT_MM = 1e6  # a slice distance that nothing reaches over: each slice by itself

Box = tuple[slice, slice, slice]


def box_of(inside: NDArray[np.bool_]) -> Box:
    """Return the least box around `inside`, which must not be empty."""
    ends = []
    for axis in range(3):
        there = np.flatnonzero(inside.any(axis=tuple(n for n in range(3) if n != axis)))
        ends.append(slice(int(there[0]), int(there[-1]) + 1))
    return ends[0], ends[1], ends[2]


def widened(box: Box, voxels: tuple[int, int, int], shape: tuple[int, ...]) -> Box:
    """Return `box` with so many voxels more on each side, as far as the array goes."""
    ends = [slice(max(0, b.start - n), min(b.stop + n, size)) for b, n, size in zip(box, voxels, shape, strict=True)]
    return ends[0], ends[1], ends[2]


def voxels_within(radius_mm: float, grid_mm: tuple[float, ...]) -> tuple[int, int, int]:
    """Return how many voxels lie within a radius along slice, row and column."""
    slices, rows, columns = (int(radius_mm // mm) for mm in grid_mm)
    return slices, rows, columns


def close(inside: NDArray[np.bool_], grid_mm: tuple[float, ...], radius_mm: float) -> NDArray[np.bool_]:
    """Return `inside` closed by an ellipsoid; beyond the edge counts as neither, so nothing is eaten there."""
    box = box_of(inside)  # what is closed lies in it, and what decides on that within a radius of it
    wide = widened(box, voxels_within(radius_mm, grid_mm), inside.shape)
    near = ~reach(~reach(inside[wide], grid_mm, radius_mm), grid_mm, radius_mm)
    closed = np.zeros_like(inside)
    closed[box] = near[tuple(slice(b.start - w.start, b.stop - w.start) for b, w in zip(box, wide, strict=True))]
    return closed


def reach(inside: NDArray[np.bool_], grid_mm: tuple[float, ...], radius_mm: float) -> NDArray[np.bool_]:
    """Return the voxels within an ellipsoid's reach of `inside`: a union of shifted lines, one per offset."""
    slices, rows = (min(int(radius_mm // mm), n - 1) for mm, n in zip(grid_mm[:2], inside.shape[:2], strict=True))
    grown = np.zeros_like(inside)
    lines: dict[int, NDArray[np.bool_]] = {}
    for dz in range(-slices, slices + 1):
        for dy in range(-rows, rows + 1):
            left = radius_mm**2 - (dz * grid_mm[0]) ** 2 - (dy * grid_mm[1]) ** 2
            if left < 0:
                continue
            width = int(left**0.5 // grid_mm[2])
            if width not in lines:
                lines[width] = _reach_columns(inside, width)
            to_z, from_z = _shift(dz, inside.shape[0])
            to_y, from_y = _shift(dy, inside.shape[1])
            grown[to_z, to_y] |= lines[width][from_z, from_y]
    return grown


def opened(inside: NDArray[np.bool_], grid_mm: tuple[float, ...], radius_mm: float) -> NDArray[np.bool_]:
    """Return `inside` without what is thinner than twice the radius."""
    result = np.zeros_like(inside)
    if inside.any():
        box = widened(box_of(inside), (1, 1, 1), inside.shape)
        result[box] = reach(~reach(~inside[box], grid_mm, radius_mm), grid_mm, radius_mm) & inside[box]
    return result


def filled(plane: NDArray[np.bool_], pixels: float) -> NDArray[np.bool_]:
    """Return `plane` with its holes of so many pixels at most filled."""
    labels = cc3d.connected_components(~plane, connectivity=4)
    large = np.flatnonzero(np.bincount(labels.reshape(-1)) > pixels)
    return np.asarray(~np.isin(labels, np.union1d(border(labels), large[large > 0])))


def border(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return the labels that touch the edge of a plane."""
    edges = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    return edges[edges > 0].astype(np.int64)


def _reach_columns(inside: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    grown = inside.copy()
    width = min(width, inside.shape[2] - 1)
    for dx in range(-width, width + 1):
        to_x, from_x = _shift(dx, inside.shape[2])
        grown[:, :, to_x] |= inside[:, :, from_x]
    return grown


def _shift(offset: int, length: int) -> tuple[slice, slice]:
    return slice(max(0, offset), length + min(0, offset)), slice(max(0, -offset), length - max(0, offset))
