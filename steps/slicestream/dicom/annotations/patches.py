"""Voxels of one nodule in a box of their own, and many of them painted into one array of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicestream.errors import AnnotationError

MAX_VOXELS = 1 << 28  # of all boxes of a series together: a thousand times what readers draw

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, kw_only=True, slots=True)
class Patch:
    """Voxels bool, (slice, row, column), whose first one has the index `start` in the volume; may reach out of it."""

    start: tuple[int, int, int]
    voxels: NDArray[np.bool_]

    @property
    def stop(self) -> tuple[int, int, int]:
        """Index after the last voxel, per axis."""
        (k, row, column), (slices, rows, columns) = self.start, self.voxels.shape
        return k + slices, row + rows, column + columns

    @property
    def size(self) -> int:
        """Number of voxels that are set."""
        return int(np.count_nonzero(self.voxels))

    def part(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[np.bool_]:
        """Return a view of the voxels from the index `start` up to `stop`, which must lie in the patch."""
        (k, row, column), (first, top, left), (last, bottom, right) = self.start, start, stop
        return self.voxels[first - k : last - k, top - row : bottom - row, left - column : right - column]

    def within(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[np.bool_]:
        """Return the voxels of the box from `start` up to `stop`; what lies out of the patch is False."""
        low, high = np.maximum(self.start, start), np.minimum(self.stop, stop)
        whole = np.zeros(np.subtract(stop, start), np.bool_)
        if (low < high).all():
            there = _box(low - np.asarray(start), high - np.asarray(start))
            whole[there] = self.part(low.tolist(), high.tolist())
        return whole

    def clipped(self, shape: Sequence[int]) -> Patch:
        """Return the part of the patch that lies in a volume of that shape."""
        start = tuple(int(n) for n in np.clip(self.start, 0, shape))
        stop = np.maximum(np.clip(self.stop, 0, shape), start)
        return Patch(start=(start[0], start[1], start[2]), voxels=self.within(start, [int(n) for n in stop]))


def overlap(one: Patch, other: Patch) -> int:
    """Return how many voxels both have."""
    low = [max(a, b) for a, b in zip(one.start, other.start, strict=True)]
    high = [min(a, b) for a, b in zip(one.stop, other.stop, strict=True)]
    if any(a >= b for a, b in zip(low, high, strict=True)):
        return 0
    return int(np.count_nonzero(one.part(low, high) & other.part(low, high)))


def check_extent(voxels: int, where: str) -> None:
    """Raise AnnotationError, named by `where`, where the boxes of a series hold more than MAX_VOXELS together."""
    if voxels > MAX_VOXELS:
        raise AnnotationError(
            f"{where}: nodules whose boxes hold over {MAX_VOXELS} voxels together; need nodules of a chest. "
            "Leave the file out."
        )


def voxel_counts(labels: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return the number of voxels of each label, 0 included; slice by slice, for counting widens what it counts."""
    counts = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
    for plane in labels:
        counts += np.bincount(plane.reshape(-1), minlength=len(counts))
    return counts


def painted(shape: tuple[int, int, int], patches: Sequence[Patch]) -> NDArray[np.uint16]:
    """Return labels: patch k has label k + 1; where two overlap, the smaller one has the voxel."""
    labels = np.zeros(shape, np.uint16)
    for index in sorted(range(len(patches)), key=lambda k: -patches[k].size):
        inside = patches[index].clipped(shape)
        labels[_box(inside.start, inside.stop)][inside.voxels] = index + 1
    return labels


def _box(start: Sequence[int] | NDArray[np.int64], stop: Sequence[int] | NDArray[np.int64]) -> Box:
    first, second, third = (slice(int(low), int(high)) for low, high in zip(start, stop, strict=True))
    return first, second, third
