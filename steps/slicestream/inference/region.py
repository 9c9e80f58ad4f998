"""Where a network has to look: around the lungs, slice by slice. Outside them no candidate is kept anyway."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from slicestream.volumes.geometry import Geometry
from slicestream.volumes.lungs import Lungs

MULTIPLE = 16  # four halvings in the network: rows and columns must divide by it, and a cut keeps their grid
NEAR_MM = 10.0  # lung so far above or below counts too: a candidate may reach out of the last slice with lung
MARGIN_PX = 48  # half of what five levels see; on whole scans the rest moved no probability in the lungs by over 0.02

Window2D = tuple[slice, slice]


def whole(shape: tuple[int, ...]) -> list[Window2D | None]:
    """Return the window of all rows and columns for each slice."""
    slices, rows, columns = shape
    return [(slice(0, _up(rows)), slice(0, _up(columns)))] * slices


def around(lungs: Lungs, geometry: Geometry) -> list[Window2D | None]:
    """Return, for each slice, the rows and columns to look at; None where no lung is near; all without a lung mask.

    They begin and end at multiples of 16, and may end beyond the slice.
    """
    if lungs.inside is None:
        return whole(geometry.shape)
    slices, *sides = geometry.shape
    near = math.ceil(NEAR_MM / geometry.spacing_mm[0] / lungs.steps[0])
    found: list[Window2D | None] = []
    for k in range(slices):
        z = k // lungs.steps[0]
        inside = np.asarray(lungs.inside[max(0, z - near) : z + near + 1].any(axis=0))
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        found.append(
            (_span(rows, lungs.steps[1], sides[0]), _span(columns, lungs.steps[2], sides[1])) if len(rows) else None
        )
    return found


def _span(inside: NDArray[np.int64], step: int, size: int) -> slice:
    first, end = int(inside[0]) * step - MARGIN_PX, int(inside[-1] + 1) * step + MARGIN_PX
    return slice(max(0, first // MULTIPLE * MULTIPLE), min(_up(end), _up(size)))


def _up(size: int) -> int:
    return -(-size // MULTIPLE) * MULTIPLE
