"""Where voxels lie, relative to the first voxel: no patient coordinate leaves the laptop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """A regular grid of voxels, array axes (slice, row, column).

    Attributes
    ----------
    shape : number of slices, rows, columns
    spacing_mm : distance between voxel centres along slice, row and column axis
    direction_lps : unit vectors (LPS) along which the slice, row and column index grow
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    direction_lps: tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]] = (
        (0.0, 0.0, 1.0),
        (0.0, 1.0, 0.0),
        (1.0, 0.0, 0.0),
    )

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or min(self.spacing_mm) <= 0:
            raise ValueError(f"shape {self.shape} and spacing {self.spacing_mm} mm must be positive")

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel, mm³."""
        return float(np.prod(self.spacing_mm))

    def offset_lps_mm(self, index: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return offsets from the first voxel in mm, LPS (..., 3), of indices (..., (slice, row, column))."""
        scaled = np.asarray(index, np.float64) * np.asarray(self.spacing_mm)
        return np.asarray(scaled @ np.asarray(self.direction_lps, np.float64))

    def to_header(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "shape": list(self.shape),
            "spacing_mm": list(self.spacing_mm),
            "direction_lps": [list(axis) for axis in self.direction_lps],
        }

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> Geometry:
        """Read the JSON form. Raises KeyError, TypeError or ValueError where it is none."""
        slices, rows, columns = (int(n) for n in header["shape"])
        z, y, x = (float(n) for n in header["spacing_mm"])
        along_slice, along_row, along_column = (_vector(axis) for axis in header["direction_lps"])
        return cls(
            shape=(slices, rows, columns), spacing_mm=(z, y, x), direction_lps=(along_slice, along_row, along_column)
        )


def _vector(axis: Any) -> tuple[float, float, float]:
    x, y, z = (float(n) for n in axis)
    return (x, y, z)
