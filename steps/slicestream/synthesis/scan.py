"""A CT of a chest: organs, vessels and nodules on a voxel grid, with noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicestream.synthesis import nodules as _nodules
from slicestream.synthesis import vessels as _vessels
from slicestream.synthesis.chest import BLOOD_HU, Chest, Floats
from slicestream.synthesis.nodules import Nodule
from slicestream.synthesis.vessels import Vessel

# slice distance in mm → number of slices: 72 to 90 mm of the chest
SLICES = {1.5: 48, 2.0: 42, 2.5: 34, 3.0: 28}


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How a scan is taken."""

    matrix: int
    pixel_mm: float
    slice_mm: float
    slices: int
    noise_hu: float

    def __post_init__(self) -> None:
        if self.matrix < 16 or self.slices < 1 or min(self.pixel_mm, self.slice_mm) <= 0:
            raise ValueError(f"protocol {self}: sizes must be positive and the matrix at least 16")

    @property
    def axes_mm(self) -> tuple[Floats, Floats, Floats]:
        """Voxel centres along z, y, x."""
        z = (np.arange(self.slices) - (self.slices - 1) / 2) * self.slice_mm
        x = (np.arange(self.matrix) - (self.matrix - 1) / 2) * self.pixel_mm
        return z, x.copy(), x


def protocol_of(rng: np.random.Generator, matrix: int) -> Protocol:
    """Draw a protocol whose field of view is 256 to 333 mm."""
    slice_mm = float(rng.choice(list(SLICES)))
    return Protocol(
        matrix=matrix,
        pixel_mm=round(rng.uniform(1.0, 1.3) * 256 / matrix, 4),
        slice_mm=slice_mm,
        slices=SLICES[slice_mm],
        noise_hu=round(rng.uniform(18.0, 30.0), 1),
    )


def scan(
    protocol: Protocol, chest: Chest, vessels: Sequence[Vessel], nodules: Sequence[Nodule], rng: np.random.Generator
) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """Return HU int16 and nodule numbers uint16 (0 = none, k = the k-th nodule), both (slice, row, column).

    A voxel belongs to a nodule when at least half of it lies within the ball.
    """
    z, y, x = protocol.axes_mm
    picture = chest.hu(x, y[:, None], z[:, None, None])
    lung = chest.in_lung(x, y[:, None], z[:, None, None])
    for vessel in vessels:
        _draw_vessel(picture, lung, vessel, protocol)
    picture = _blurred(picture)
    labels = np.zeros(picture.shape, np.uint16)
    for number, nodule in enumerate(nodules, start=1):
        box = _box(protocol, np.asarray(nodule.centre_mm), nodule.diameter_mm / 2)
        labels[box][_draw_nodule(picture, nodule, protocol, box) >= 0.5] = number
    picture += _noise(picture.shape, protocol.noise_hu, rng)
    return np.rint(picture).astype(np.int16), labels


def _box(protocol: Protocol, centre: NDArray[Any], reach_mm: float) -> tuple[slice, slice, slice]:
    sizes = (protocol.slice_mm, protocol.pixel_mm, protocol.pixel_mm)
    low_high = [
        (np.searchsorted(axis, c - reach_mm - size), np.searchsorted(axis, c + reach_mm + size))
        for axis, c, size in zip(protocol.axes_mm, centre[::-1], sizes, strict=True)
    ]
    a, b, c = (slice(int(low), int(high)) for low, high in low_high)
    return a, b, c


def _draw_vessel(picture: NDArray[np.float32], lung: NDArray[np.bool_], vessel: Vessel, protocol: Protocol) -> None:
    middle = (vessel.start_mm + vessel.end_mm) / 2
    reach = np.abs(vessel.end_mm - vessel.start_mm) / 2 + vessel.radius_mm
    boxes = [_box(protocol, middle, float(r))[2 - axis] for axis, r in enumerate(reach)]
    box = (boxes[2], boxes[1], boxes[0])
    if picture[box].size == 0:
        return
    z, y, x = (axis[part] for axis, part in zip(protocol.axes_mm, box, strict=True))
    share = _vessels.coverage_of(vessel, x, y[:, None], z[:, None, None]) * lung[box]
    np.maximum(picture[box], picture[box] + share * (BLOOD_HU - picture[box]), out=picture[box])


def _draw_nodule(
    picture: NDArray[np.float32], nodule: Nodule, protocol: Protocol, box: tuple[slice, slice, slice]
) -> NDArray[np.float32]:
    grid = [axis[part] for axis, part in zip(protocol.axes_mm, box, strict=True)]
    sizes = (protocol.slice_mm, protocol.pixel_mm, protocol.pixel_mm)
    share = _nodules.coverage_of(nodule.centre_mm, nodule.diameter_mm, grid, sizes)
    core = _nodules.coverage_of(nodule.centre_mm, nodule.diameter_mm * nodule.core_share, grid, sizes)
    picture[box] = picture[box] * (1 - share) + nodule.hu * (share - core) + nodule.core_hu * core
    return share


def _blurred(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the picture after a 1-2-1 filter along rows and columns: the scanner's point spread."""
    for axis in (1, 2):
        padded = np.pad(picture, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        size = picture.shape[axis]
        low, mid, high = (np.take(padded, range(k, k + size), axis=axis) for k in range(3))
        picture = (low + 2 * mid + high) / np.float32(4)
    return picture


def _noise(shape: tuple[int, ...], sd_hu: float, rng: np.random.Generator) -> NDArray[np.float32]:
    # neighbouring pixels of a slice share noise, as after a reconstruction kernel; sqrt(1/2) keeps the sd
    white = rng.standard_normal((shape[0], shape[1] + 1, shape[2] + 1), dtype=np.float32)
    mixed = white[:, 1:, 1:] + 0.5 * (white[:, :-1, 1:] + white[:, 1:, :-1])
    return np.asarray(mixed * np.float32(sd_hu / np.sqrt(1.5)), np.float32)
