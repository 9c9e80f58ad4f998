"""Gas that is no lung: windpipe and main bronchi, stomach and bowel. Axial slices towards the head, rows, columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray

from slicestream.volumes.shapes import FLAT_MM, Box, reach, voxels_within, widened

LEVELS_HU = (-900.0, -940.0)  # smoothed: the first has all of a windpipe, the second parts it from inflated lung
GAS_BELOW_HU = -945.0  # mean of a pocket: gas is near -1000, inflated lung near -920
PURE_BELOW_HU = -970.0  # no lung holds so little, wherever it lies
LEAST_ML = 1.0
WALL_MM = 3.0  # around a pocket, in its slice, so far off and a pixel further there is its wall
WALL_ABOVE_HU = -700.0  # a wall thinner than a voxel is blurred, but no lung
MIN_WALL = 0.7  # of a pocket's surroundings: windpipe, stomach and bowel have 0.8 and more, bullae 0.5 and less
TUBE_MM = 50.0  # a windpipe goes on for so long, or through the whole scan
TUBE_MM2 = 800.0  # and is no wider, as a mean over its slices, both main bronchi together
NEAR_MM = 20.0
MAX_LUNG_NEAR = 0.25  # of what surrounds a stomach; more is there around a cavity in the lung


def gas_beside_lung(
    hu: NDArray[np.float32], air: NDArray[np.bool_], grid_mm: tuple[float, float, float]
) -> NDArray[np.bool_]:
    """Return what of `air` is gas of windpipe, main bronchi, stomach or bowel, or stands beside a collapsed lung.

    A pocket is a piece of smoothed air under -900 or -940 HU that is gas (mean under -945 HU) in a wall of tissue. It
    goes as an airway where it is long and narrow, and as something else where little lung is near it and it is pure gas
    or lies in the lower half of the lungs' height. Other pockets stay: a cavity, a bulla. Where an airway opens into
    emphysema the piece has no wall, and stays too.
    """
    found = np.zeros_like(air)
    middle = float(np.flatnonzero(air.any(axis=(1, 2))).mean())
    smooth = _smoothed(hu)
    for level in LEVELS_HU:
        for pocket in _pockets((smooth < level) & air & ~found, hu, grid_mm):
            if _is_tube(pocket, len(hu), grid_mm) or _stands_apart(pocket, air, grid_mm, below=middle):
                found[pocket.box] |= pocket.inside
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pocket:
    """A piece of gas: its box, which of the box's voxels it is, and its mean HU."""

    box: Box
    inside: NDArray[np.bool_]
    mean_hu: float


def _pockets(
    core: NDArray[np.bool_], hu: NDArray[np.float32], grid_mm: tuple[float, float, float]
) -> Iterator[_Pocket]:
    """Yield the pieces of `core` that are gas in a wall of tissue."""
    labels = cc3d.connected_components(core, connectivity=6)
    about = cc3d.statistics(labels)
    for label in np.flatnonzero(about["voxel_counts"] * float(np.prod(grid_mm)) / 1000 >= LEAST_ML):
        if label == 0:
            continue
        box = about["bounding_boxes"][label]
        inside = labels[box] == label
        pocket = _Pocket(box=box, inside=inside, mean_hu=float(hu[box][inside].mean()))
        if pocket.mean_hu < GAS_BELOW_HU:
            wall, around = _ring(pocket, hu.shape, grid_mm, (WALL_MM, WALL_MM + max(grid_mm[1:])))
            if wall.any() and np.mean(hu[around][wall] > WALL_ABOVE_HU) >= MIN_WALL:
                yield pocket


def _ring(
    pocket: _Pocket, shape: tuple[int, ...], grid_mm: tuple[float, float, float], mm: tuple[float, float]
) -> tuple[NDArray[np.bool_], Box]:
    """Return what lies so far from a pocket (more than the first, at most the second) in its slices, and its box."""
    flat_mm = (FLAT_MM, *grid_mm[1:])
    more = voxels_within(mm[1], flat_mm)
    box = widened(pocket.box, more, shape)
    inside = np.zeros([part.stop - part.start for part in box], np.bool_)
    inside[tuple(slice(p.start - w.start, p.stop - w.start) for p, w in zip(pocket.box, box, strict=True))] = (
        pocket.inside
    )
    return reach(inside, flat_mm, mm[1]) & ~reach(inside, flat_mm, mm[0]), box


def _is_tube(pocket: _Pocket, slices: int, grid_mm: tuple[float, float, float]) -> bool:
    height = len(pocket.inside)
    wide_mm2 = np.count_nonzero(pocket.inside) / height * grid_mm[1] * grid_mm[2]
    return bool(height * grid_mm[0] >= min(TUBE_MM, slices * grid_mm[0]) and wide_mm2 <= TUBE_MM2)


def _stands_apart(
    pocket: _Pocket, air: NDArray[np.bool_], grid_mm: tuple[float, float, float], *, below: float
) -> bool:
    if pocket.mean_hu >= PURE_BELOW_HU and pocket.box[0].stop > below:
        return False
    near, around = _ring(pocket, air.shape, grid_mm, (2 * WALL_MM, NEAR_MM))
    return bool(near.any() and np.mean(air[around][near]) < MAX_LUNG_NEAR)


def _smoothed(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean over 3 × 3 pixels."""
    wide = np.pad(hu, ((0, 0), (1, 1), (1, 1)), mode="edge")
    lines = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    return np.asarray((lines[:, :, :-2] + lines[:, :, 1:-1] + lines[:, :, 2:]) / 9, np.float32)
