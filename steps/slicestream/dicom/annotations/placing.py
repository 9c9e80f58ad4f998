"""One object of a file that has a grid of its own, to the voxels of the series."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from slicestream.dicom.annotations.choosing import listed
from slicestream.dicom.annotations.drawing import SeriesPlace
from slicestream.dicom.annotations.grids import (
    LEAST_INSIDE,
    Stack,
    centre_of,
    cropped,
    is_same_grid,
    share_inside,
    voxels_of,
)
from slicestream.dicom.annotations.painting import Shape
from slicestream.errors import AnnotationError


def placed(stack: Stack, name: str, place: SeriesPlace, path: Path) -> tuple[Shape, list[str]]:
    """Return the object's voxels in the series and what is to be said of it. At least one voxel must be marked.

    An object that no voxel centre of the series lies in becomes a place. Raises AnnotationError where less than
    `LEAST_INSIDE` of the object lies in the series.
    """
    notes = []
    part = cropped(stack)
    share = share_inside(part, place)
    if share < LEAST_INSIDE:
        raise AnnotationError(
            f"{path}: {listed([name])} lies to {share:.0%} within series {place.uid}; need at least "
            f"{LEAST_INSIDE:.0%}. Give the file with the series that it was drawn on."
        )
    if share < 1:
        notes.append(f"{listed([name])}: {1 - share:.1%} of it lies outside the series and is cut off")
    voxels = voxels_of(part, place)
    if len(voxels):
        return Shape(name=name, voxels=voxels), notes
    notes.append(f"{listed([name])} is too small for the series' voxels: kept as a place without an outline")
    x, y, z = (float(n) for n in centre_of(part))
    return Shape(name=name, voxels=voxels, centre_lps_mm=(x, y, z)), notes


def grid_note(stack: Stack, place: SeriesPlace) -> list[str]:
    """Return a note where the voxels of file and series are not the same."""
    between, row_mm, column_mm = stack.spacing_mm
    ours = place.geometry.spacing_mm
    axis = int(np.abs(np.asarray(place.geometry.direction_lps) @ stack.direction_lps[0]).argmax())
    if is_same_grid(stack, place) and abs(between - ours[axis]) <= 0.1 * ours[axis]:
        return []
    return [
        f"drawn on another grid ({between:g} x {row_mm:g} x {column_mm:g} mm, the series has {ours[0]:g} x {ours[1]:g} "
        f"x {ours[2]:g} mm): carried over by the nearest neighbour"
    ]
