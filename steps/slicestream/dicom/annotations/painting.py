"""Objects that may overlap to one array of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray

from slicestream.dicom.annotations.choosing import listed, printable
from slicestream.dicom.annotations.drawing import Drawing, DrawnNodule, SeriesPlace
from slicestream.errors import AnnotationError

MOST_NODULES = 65535  # what uint16 labels hold


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One object: the flat indices of its voxels in the series, ascending, or none of them and a place."""

    name: str
    voxels: NDArray[np.intp]
    centre_lps_mm: tuple[float, float, float] | None = None


def paint(shapes: Sequence[Shape], place: SeriesPlace, notes: Sequence[str] = ()) -> Drawing:
    """Return labels 1, 2, … in the order of the shapes; where two overlap, the smaller one has the voxel.

    A shape without a voxel becomes a nodule that has a place and no outline (label 0). One that smaller ones cover
    wholly is left out, with a note. Raises AnnotationError where there are more shapes than labels.
    """
    if len(shapes) > MOST_NODULES:
        raise AnnotationError(
            f"{len(shapes)} objects in one file; need {MOST_NODULES} at most. Choose some with --structure."
        )
    labels = np.zeros(place.geometry.shape, np.uint16)
    flat = labels.reshape(-1)
    # of two of one size the earlier has the voxel
    for number in sorted(range(len(shapes)), key=lambda n: (-len(shapes[n].voxels), -n)):
        flat[shapes[number].voxels] = number + 1
    seen = [bool((flat[shape.voxels] == n).any()) for n, shape in enumerate(shapes, start=1)]
    numbers = np.concatenate(([0], np.cumsum(seen) * seen)).astype(np.uint16)
    if not all(seen):
        for plane in labels:
            plane[...] = numbers[plane]
    nodules = [
        DrawnNodule(label=int(number), name=printable(shape.name))
        if len(shape.voxels)
        else DrawnNodule(label=0, name=printable(shape.name), form="point", centre_lps_mm=shape.centre_lps_mm)
        for shape, number in zip(shapes, numbers[1:], strict=True)
        if number or not len(shape.voxels)
    ]
    hidden = [shape.name for shape, there in zip(shapes, seen, strict=True) if len(shape.voxels) and not there]
    said = [f"covered wholly by others, left out: {listed(hidden)}"] if hidden else []
    return Drawing(labels=labels, nodules=tuple(nodules), notes=(*notes, *said, *_parted(shapes, place)))


def _parted(shapes: Sequence[Shape], place: SeriesPlace) -> list[str]:
    """Return a note on each shape that falls apart: it counts as one nodule."""
    notes = []
    rows, columns = place.geometry.shape[1:]
    for shape in shapes:
        if not len(shape.voxels):
            continue
        first, last = int(shape.voxels[0]) // (rows * columns), int(shape.voxels[-1]) // (rows * columns)
        box = np.zeros((last - first + 1, rows, columns), np.uint8)  # of bool, cc3d 4.1.1 fails on [1, 0, 1]
        box.reshape(-1)[shape.voxels - first * rows * columns] = 1
        parts = int(cc3d.connected_components(box, connectivity=26, return_N=True)[1])
        if parts > 1:
            notes.append(f"{listed([shape.name])} has {parts} separate parts and counts as one nodule")
    return notes
