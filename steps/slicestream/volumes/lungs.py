"""A cheap lung mask: where a candidate may lie. Coarse on purpose; numpy and connected components only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from slicestream.volumes.gas import NEAR_MM, gas_beside_lung
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.shapes import FLAT_MM, border, box_of, close, filled, opened, reach, voxels_within, widened

MIN_VIEW_MM = 220.0  # a smaller field of view is a crop: outside air and lung cannot be told apart
GRID_MM = (2.5, 1.5, 1.5)  # finer in the slice, so that half of a 5 mm nodule on the pleura is inside
AIR_BELOW_HU = -500.0
LUNG_ABOVE_HU = -950.0  # mean of a component: lung holds blood and tissue, the air around a patient none
MAX_GAS = 0.5  # of what reaches the image border: outside it is gas but for table and clothes
MIN_LUNG_ML = 10.0
BLUR_MM = 3.0  # from the gas of an airway to its wall
CLOSING_MM = 15.0
SHELL_MM = 9.0  # tissue thinner than this is no chest wall: a table's shell, clothes
MIN_BODY_WALL = 0.35  # of a lung's wall; real lungs have 0.6 and more (vessels and fissures are thin), foam 0.0
BONE_ABOVE_HU = 200.0  # the middle of the bones is that of the patient
MISSING_MM = 20.0  # less than that is how the two sides differ
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

    Air under -500 HU on a grid of about 2.5 × 1.5 × 1.5 mm, without what touches the image border in its axial slice
    and is gas for the larger part (air around a patient, not lung that a tight view cuts). Kept are components of 10 ml
    and more whose mean is over -950 HU and a third of whose wall is body: the largest piece of tissue once all that is
    thinner than 9 mm is gone, as a table's shell is, also where the patient lies on it. Windpipe, main bronchi, stomach
    and bowel are taken out. Closed by 15 mm and filled slice by slice up to the area of a disc of 60 mm, so that
    nodules and vessels count as inside, also at the pleura, and the heart does not. What the other side's mirror image
    shows as missing at the patient's side is added: lung without air. A field of view under 220 mm, or no lung found,
    gives no mask.
    """
    view_mm = min(n * mm for n, mm in zip(geometry.shape[1:], geometry.spacing_mm[1:], strict=True))
    if view_mm < MIN_VIEW_MM:
        return no_lungs(f"field of view {view_mm:.0f} mm, under {MIN_VIEW_MM:.0f} mm: a crop")
    axial = _Axial.of(geometry)
    steps = axial.steps(geometry)
    grid_mm = axial.sorted([mm * step for mm, step in zip(geometry.spacing_mm, steps, strict=True)])
    inside, volume_ml = _axial_lungs(axial.turned(_averaged(hu, steps)), grid_mm)
    if not volume_ml:
        return no_lungs("no lung found")
    return Lungs(inside=axial.turned_back(inside), steps=steps, volume_ml=volume_ml)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Axial:
    """How an array is turned to axial slices towards the head: which axis becomes which, and whether slices swap."""

    order: tuple[int, int, int]
    swapped: bool

    @classmethod
    def of(cls, geometry: Geometry) -> _Axial:
        direction = np.asarray(geometry.direction_lps)
        up = int(np.abs(direction[:, 2]).argmax())
        side = max((n for n in range(3) if n != up), key=lambda n: abs(direction[n, 0]))
        return cls(order=(up, 3 - up - side, side), swapped=bool(direction[up, 2] < 0))

    def turned(self, array: NDArray[Any]) -> NDArray[Any]:
        axial = array.transpose(self.order)
        return np.ascontiguousarray(axial[::-1] if self.swapped else axial)

    def turned_back(self, axial: NDArray[Any]) -> NDArray[Any]:
        array = axial[::-1] if self.swapped else axial
        return np.ascontiguousarray(array.transpose(np.argsort(self.order)))

    def sorted(self, values: Sequence[float]) -> tuple[float, float, float]:
        """Return one value per array axis in axial order."""
        z, y, x = (values[axis] for axis in self.order)
        return z, y, x

    def steps(self, geometry: Geometry) -> tuple[int, int, int]:
        """Return how many voxels make a coarse one, per array axis."""
        axial = [max(1, round(grid / mm)) for grid, mm in zip(GRID_MM, self.sorted(geometry.spacing_mm), strict=True)]
        slices, rows, columns = (axial[self.order.index(axis)] for axis in range(3))
        return slices, rows, columns


def _axial_lungs(hu: NDArray[np.float32], grid_mm: tuple[float, float, float]) -> tuple[NDArray[np.bool_], float]:
    """Return where lungs are, and the aerated volume in ml; 0 where there are none."""
    air = np.asarray(hu < AIR_BELOW_HU)
    outside = _outside(hu, air)
    aerated = _large_and_lung_like(air & ~outside, hu, grid_mm)
    if not aerated.any():
        return aerated, 0.0
    gas = _gas(hu, aerated, grid_mm)
    aerated = _large(aerated & ~gas, grid_mm)
    if not aerated.any():
        return aerated, 0.0
    closed = close(aerated, grid_mm, CLOSING_MM)
    hole = np.pi / 4 * HOLE_MM**2 / (grid_mm[1] * grid_mm[2])
    inside = np.stack([filled(plane, hole) for plane in closed])
    inside |= _missing(inside, hu, grid_mm) & ~outside
    return inside & ~gas, float(np.count_nonzero(aerated) * np.prod(grid_mm) / 1000)


def _missing(
    inside: NDArray[np.bool_], hu: NDArray[np.float32], grid_mm: tuple[float, float, float]
) -> NDArray[np.bool_]:
    """Return what is lung in the mirror image alone, with no lung between it and the patient's side.

    So what a collapsed lung, a consolidation or a broad mass on the pleura takes counts as inside. Heart and diaphragm
    have lung beside them.
    """
    slices, rows, _ = box_of(inside)  # there the bones are spine, ribs and breastbone, and no table
    bones = np.count_nonzero(hu[slices, rows] > BONE_ABOVE_HU, axis=(0, 1)).cumsum()
    middle = int(np.searchsorted(bones, bones[-1] / 2))
    width = min(middle, inside.shape[2] - middle)
    here, there = slice(middle - width, middle), slice(middle, middle + width)
    found = np.zeros_like(inside)
    for to, from_, outwards in ((here, there, 1), (there, here, -1)):
        beside = np.logical_or.accumulate(inside[:, :, to][:, :, ::outwards], axis=2)[:, :, ::outwards]
        found[:, :, to] = inside[:, :, from_][:, :, ::-1] & ~beside
    return opened(found, (FLAT_MM, *grid_mm[1:]), MISSING_MM / 2)


def _gas(hu: NDArray[np.float32], aerated: NDArray[np.bool_], grid_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Return the gas in `aerated` that is no lung, with the blur at its wall."""
    gas = np.zeros_like(aerated)
    box = widened(box_of(aerated), voxels_within(NEAR_MM, (FLAT_MM, *grid_mm[1:])), hu.shape)
    found = gas_beside_lung(hu[box], aerated[box], grid_mm)
    gas[box] = reach(found, (FLAT_MM, *grid_mm[1:]), BLUR_MM) & aerated[box]
    return gas


def _averaged(hu: NDArray[np.int16], steps: tuple[int, ...]) -> NDArray[np.float32]:
    # mean over rows and columns (less noise), every n-th slice (less memory); edges are repeated to whole blocks
    _, high, wide = steps
    beyond = tuple((0, -n % step) for n, step in zip(hu.shape[1:], steps[1:], strict=True))
    planes = []
    for plane in hu[:: steps[0]]:
        whole = np.pad(plane, beyond, mode="edge") if np.any(beyond) else plane
        parts = (whole[row::high, column::wide] for row in range(high) for column in range(wide))
        total = np.sum([part.astype(np.float32) for part in parts], axis=0)  # whole numbers: exact
        planes.append(total / np.float32(high * wide))
    return np.stack(planes)


def _outside(hu: NDArray[np.float32], air: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the air around the patient."""
    outside = np.zeros_like(air)
    for index, values in enumerate(hu):
        labels = cc3d.connected_components(air[index], connectivity=4)
        counts = np.bincount(labels.reshape(-1))
        gas = np.bincount(labels[values < LUNG_ABOVE_HU], minlength=len(counts)) / np.maximum(counts, 1)
        touching = border(labels)
        # a tight field of view cuts through lung: that touches the border too, but is no empty air
        outside[index] = np.isin(labels, touching[gas[touching] > MAX_GAS])
    return outside


def _large_and_lung_like(
    air: NDArray[np.bool_], hu: NDArray[np.float32], grid_mm: tuple[float, float, float]
) -> NDArray[np.bool_]:
    labels = cc3d.connected_components(air, connectivity=6)
    flat = labels.reshape(-1)
    counts = np.bincount(flat)
    means = np.bincount(flat, weights=hu.reshape(-1)) / np.maximum(counts, 1)
    kept = (counts * float(np.prod(grid_mm)) / 1000 >= MIN_LUNG_ML) & (means > LUNG_ABOVE_HU)
    kept &= _share_of_wall_that_is_body(labels, hu >= AIR_BELOW_HU, grid_mm, len(counts)) >= MIN_BODY_WALL
    kept[0] = False
    return np.asarray(kept[labels])


def _large(air: NDArray[np.bool_], grid_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    labels = cc3d.connected_components(air, connectivity=6)
    kept = np.bincount(labels.reshape(-1)) * float(np.prod(grid_mm)) / 1000 >= MIN_LUNG_ML
    kept[0] = False
    return np.asarray(kept[labels])


def _share_of_wall_that_is_body(
    labels: NDArray[Any], tissue: NDArray[np.bool_], grid_mm: tuple[float, float, float], count: int
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


def _body(tissue: NDArray[np.bool_], grid_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Return the largest piece of what is left of tissue when slices are opened by half of `SHELL_MM`."""
    in_slice = (FLAT_MM, *grid_mm[1:])
    core = ~reach(~tissue, in_slice, SHELL_MM / 2)
    pieces = cc3d.connected_components(core, connectivity=6)
    sizes = np.bincount(pieces.reshape(-1))
    sizes[0] = 0
    largest = np.asarray((pieces == sizes.argmax()) & core)
    return reach(largest, in_slice, SHELL_MM / 2) & tissue
