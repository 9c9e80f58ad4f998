"""Voxels in the order that the browser draws them in, and the header that says where they lie.

The viewer's (x, y, z) grow to the patient's right, front and head: NIfTI's RAS. Voxels are only permuted and mirrored,
by whole axes, and the affine with them: no value and no place changes, oblique stacks stay oblique.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicestream.volumes.geometry import Geometry

LPS_TO_RAS = np.array((-1.0, -1.0, 1.0))
HEADER_BYTES = 352  # NIfTI-1: 348 and four for no extension
INT16, MM, ALIGNED = 4, 2, 2  # NIfTI-1 codes: datatype, unit of length, "aligned to another image's coordinates"


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewGrid:
    """How a volume's array (slice, row, column) becomes the viewer's (x, y, z).

    Attributes
    ----------
    order : the array's axis that runs along x, y and z
    flipped : whether it runs the other way, for x, y and z
    shape : voxels along x, y and z
    affine : 4 x 4, from voxel (x, y, z) to mm, RAS, relative to the first voxel of the array
    """

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def arrange(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of (slice, row, column) with axes (z, y, x), so that x is the fastest."""
        turned = array.transpose(self.order[::-1])
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped[::-1])]

    def place(self, index: tuple[float, float, float]) -> tuple[float, float, float]:
        """Return the (x, y, z) of an index (slice, row, column)."""
        x, y, z = (
            self.shape[n] - 1 - index[axis] if self.flipped[n] else index[axis] for n, axis in enumerate(self.order)
        )
        return (x, y, z)


def view_grid(geometry: Geometry) -> ViewGrid:
    """Return the permutation and mirroring of whole axes that comes nearest to x right, y front, z head."""
    along = np.asarray(geometry.direction_lps, np.float64) * LPS_TO_RAS  # array axis, world axis
    first, second, third = max(permutations(range(3)), key=lambda p: sum(abs(along[a, n]) for n, a in enumerate(p)))
    order = (first, second, third)
    affine, flipped = np.eye(4), []
    for n, axis in enumerate(order):
        step = along[axis] * geometry.spacing_mm[axis]
        flip = bool(along[axis, n] < 0)
        flipped.append(flip)
        affine[:3, n] = -step if flip else step
        affine[:3, 3] += step * (geometry.shape[axis] - 1) if flip else 0.0
    x, y, z = (geometry.shape[axis] for axis in order)
    return ViewGrid(order=order, flipped=(flipped[0], flipped[1], flipped[2]), shape=(x, y, z), affine=affine)


def nifti_header(grid: ViewGrid) -> bytes:
    """Return the 352 bytes that stand before int16 voxels in a NIfTI-1 file (nifti.nimh.nih.gov/nifti-1)."""
    header = bytearray(HEADER_BYTES)
    spacing_mm = np.linalg.norm(grid.affine[:3, :3], axis=0)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *grid.shape, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, INT16, 16)
    struct.pack_into("<8f", header, 76, 1.0, *spacing_mm, 0.0, 0.0, 0.0, 0.0)
    struct.pack_into("<fff", header, 108, HEADER_BYTES, 1.0, 0.0)  # voxels start here; slope, intercept
    struct.pack_into("<B", header, 123, MM)
    struct.pack_into("<hh", header, 252, 0, ALIGNED)  # no quaternion: it could not say a mirrored grid exactly
    struct.pack_into("<12f", header, 280, *grid.affine[:3].ravel())
    struct.pack_into("<4s", header, 344, b"n+1\0")
    return bytes(header)
