"""A cheap lung mask: where a candidate may lie. Coarse on purpose; numpy and connected components only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from slicestream.volumes.geometry import Geometry

MIN_VIEW_MM = 220.0  # a smaller field of view is a crop: outside air and lung cannot be told apart
GRID_MM = (2.5, 1.5, 1.5)  # finer in the slice, so that half of a 5 mm nodule on the pleura is inside
AIR_BELOW_HU = -500.0
LUNG_ABOVE_HU = -950.0  # mean of a component: lung holds blood and tissue, the air around a patient none
EDGE_LUNG_ABOVE_HU = -900.0  # the same for air that reaches the image border: table and clothes lie in it
MIN_LUNG_ML = 10.0
CLOSING_MM = 15.0
SHELL_MM = 9.0  # tissue thinner than this is no chest wall: a table's shell, clothes
MIN_BODY_WALL = 0.35  # of a lung's wall; real lungs have 0.6 and more (vessels and fissures are thin), foam 0.0
HOLE_MM = 60.0  # what a slice of closed lung encloses is filled up to a disc of this size: a mass, not the heart


@dataclass(frozen=True, kw_only=True, slots=True)
class Lungs:
    """Lungs on a coarse grid, or none with the reason.

    Attributes
    ----------
    inside : bool, (slice, row, column) of the coarse grid; None where no mask is applied
    steps : voxels of the volume per coarse voxel, along slice, row, column
    reason : why there is no mask, "" where there is one
    volume_ml : of the aerated lung found
    """

    inside: NDArray[np.bool_] | None
    steps: tuple[int, int, int] = (1, 1, 1)
    reason: str = ""
    volume_ml: float = 0.0

    def settings(self) -> dict[str, Any]:
        """Return what a mask's settings say of it."""
        return {"applied": self.inside is not None, "reason": self.reason, "volume_ml": round(self.volume_ml, 1)}

    def share_inside(self, components: NDArray[Any], voxels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the share of each component's voxels inside the lungs, by label; 1 where no mask is applied."""
        if self.inside is None:
            return np.ones(len(voxels))
        hits = np.zeros(len(voxels), np.int64)
        rows, columns = (np.arange(n) // step for n, step in zip(components.shape[1:], self.steps[1:], strict=True))
        for index, plane in enumerate(components):
            y, x = np.nonzero(plane)
            coarse = self.inside[index // self.steps[0]]
            counts = np.bincount(plane[y, x][coarse[rows[y], columns[x]]])
            hits[: len(counts)] += counts
        return np.asarray(hits / np.maximum(voxels, 1), np.float64)


def no_lungs(reason: str) -> Lungs:
    """Return a mask that drops nothing."""
    return Lungs(inside=None, reason=reason)


def find_lungs(hu: NDArray[np.int16], geometry: Geometry) -> Lungs:
    """Return the lungs of a chest CT (slice, row, column), with juxtapleural tissue.

    Air under -500 HU on a grid of about 2.5 × 1.5 × 1.5 mm, without what touches the image border in its slice and has
    a mean under -900 HU (air around a patient, not lung that a tight view cuts). Kept are components of 10 ml and more
    whose mean is over -950 HU and a third of whose wall is body: the largest piece of tissue once all that is thinner
    than 9 mm is gone, as a table's shell is, also where the patient lies on it. Closed by 15 mm and filled slice by
    slice up to the area of a disc of 60 mm, so that nodules and vessels count as inside, also at the pleura, and the
    heart does not. A field of view under 220 mm, or no lung found, gives no mask.
    """
    view_mm = min(n * mm for n, mm in zip(geometry.shape[1:], geometry.spacing_mm[1:], strict=True))
    if view_mm < MIN_VIEW_MM:
        return no_lungs(f"field of view {view_mm:.0f} mm, under {MIN_VIEW_MM:.0f} mm: a crop")
    steps = tuple(max(1, round(grid / mm)) for grid, mm in zip(GRID_MM, geometry.spacing_mm, strict=True))
    grid_mm = tuple(mm * step for mm, step in zip(geometry.spacing_mm, steps, strict=True))
    coarse = _averaged(hu, steps)
    air = _without_outside(coarse)
    aerated, volume_ml = _large_and_lung_like(air, coarse, grid_mm)
    if not aerated.any():
        return no_lungs("no lung found")
    closed = _close(aerated, grid_mm, CLOSING_MM)
    hole = np.pi / 4 * HOLE_MM**2 / (grid_mm[1] * grid_mm[2])
    filled = np.stack([_filled(plane, hole) for plane in closed])
    return Lungs(inside=filled, steps=(steps[0], steps[1], steps[2]), volume_ml=volume_ml)


def _averaged(hu: NDArray[np.int16], steps: tuple[int, ...]) -> NDArray[np.float32]:
    # mean over rows and columns (less noise), every n-th slice (less memory); edges are repeated to whole blocks
    _, row_step, column_step = steps
    rows, columns = (-(-n // s) * s for n, s in zip(hu.shape[1:], steps[1:], strict=True))
    planes = []
    for plane in hu[:: steps[0]]:
        padded = np.pad(plane, ((0, rows - plane.shape[0]), (0, columns - plane.shape[1])), mode="edge")
        blocks = padded.reshape(rows // row_step, row_step, columns // column_step, column_step)
        planes.append(blocks.mean(axis=(1, 3), dtype=np.float32))
    return np.stack(planes)


def _without_outside(hu: NDArray[np.float32]) -> NDArray[np.bool_]:
    air = np.asarray(hu < AIR_BELOW_HU)
    for index, values in enumerate(hu):
        labels = cc3d.connected_components(air[index], connectivity=4)
        counts = np.bincount(labels.reshape(-1))
        means = np.bincount(labels.reshape(-1), weights=values.reshape(-1)) / np.maximum(counts, 1)
        touching = _border(labels)
        # a tight field of view cuts through lung: that touches the border too, but is no empty air
        air[index] &= ~np.isin(labels, touching[means[touching] < EDGE_LUNG_ABOVE_HU])
    return air


def _large_and_lung_like(
    air: NDArray[np.bool_], hu: NDArray[np.float32], grid_mm: tuple[float, ...]
) -> tuple[NDArray[np.bool_], float]:
    voxel_ml = float(np.prod(grid_mm)) / 1000
    labels = cc3d.connected_components(air, connectivity=6)
    flat = labels.reshape(-1)
    counts = np.bincount(flat)
    means = np.bincount(flat, weights=hu.reshape(-1)) / np.maximum(counts, 1)
    kept = (counts * voxel_ml >= MIN_LUNG_ML) & (means > LUNG_ABOVE_HU)
    kept &= _share_of_wall_that_is_body(labels, hu >= AIR_BELOW_HU, grid_mm, len(counts)) >= MIN_BODY_WALL
    kept[0] = False
    return np.asarray(kept[labels]), float(counts[kept].sum() * voxel_ml)


def _share_of_wall_that_is_body(
    labels: NDArray[Any], tissue: NDArray[np.bool_], grid_mm: tuple[float, ...], count: int
) -> NDArray[np.float64]:
    body = _body(tissue, grid_mm)
    wall, body_wall = np.zeros(count), np.zeros(count)
    before, after = slice(None, -1), slice(1, None)
    for here, there in ((before, after), (after, before)):
        for rows in (True, False):
            at, beside = ((slice(None), n) if rows else (slice(None), slice(None), n) for n in (here, there))
            wall += np.bincount(labels[at][tissue[beside]], minlength=count)
            body_wall += np.bincount(labels[at][body[beside]], minlength=count)
    return np.asarray(body_wall / np.maximum(wall, 1))


def _body(tissue: NDArray[np.bool_], grid_mm: tuple[float, ...]) -> NDArray[np.bool_]:
    """Return the largest piece of what is left of tissue when slices are opened by half of `SHELL_MM`."""
    in_slice = (1e6, *grid_mm[1:])
    core = ~_reach(~tissue, in_slice, SHELL_MM / 2)
    pieces = cc3d.connected_components(core, connectivity=6)
    sizes = np.bincount(pieces.reshape(-1))
    sizes[0] = 0
    largest = np.asarray((pieces == sizes.argmax()) & core)
    return _reach(largest, in_slice, SHELL_MM / 2) & tissue


def _filled(plane: NDArray[np.bool_], pixels: float) -> NDArray[np.bool_]:
    """Return `plane` with its holes of so many pixels at most filled."""
    labels = cc3d.connected_components(~plane, connectivity=4)
    large = np.flatnonzero(np.bincount(labels.reshape(-1)) > pixels)
    return np.asarray(~np.isin(labels, np.union1d(_border(labels), large[large > 0])))


def _border(labels: NDArray[Any]) -> NDArray[np.int64]:
    edges = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    return edges[edges > 0].astype(np.int64)


def _close(inside: NDArray[np.bool_], grid_mm: tuple[float, ...], radius_mm: float) -> NDArray[np.bool_]:
    # beyond the edge of the scan counts as neither, so nothing is eaten there
    return ~_reach(~_reach(inside, grid_mm, radius_mm), grid_mm, radius_mm)


def _reach(inside: NDArray[np.bool_], grid_mm: tuple[float, ...], radius_mm: float) -> NDArray[np.bool_]:
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


def _reach_columns(inside: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    grown = inside.copy()
    width = min(width, inside.shape[2] - 1)
    for dx in range(-width, width + 1):
        to_x, from_x = _shift(dx, inside.shape[2])
        grown[:, :, to_x] |= inside[:, :, from_x]
    return grown


def _shift(offset: int, length: int) -> tuple[slice, slice]:
    return slice(max(0, offset), length + min(0, offset)), slice(max(0, -offset), length - max(0, offset))
