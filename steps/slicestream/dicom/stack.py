"""Images in the order of their positions: one regular grid, or the reason why they make none.

Sorting goes by ImagePositionPatient along the normal of the images (PS3.3 C.7.6.2.1.1), never by file name, instance
number or slice location. docs/data.md states the rules for copies and for several images at one position.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from slicestream.dicom.files import needed, optional, text_of, whole
from slicestream.dicom.header import FileHeader
from slicestream.dicom.study import SourceSlice
from slicestream.errors import SeriesError, StudyError
from slicestream.volumes.geometry import Geometry

_SPACING_TOLERANCE = 0.01  # of the spacing
_SPACING_TOLERANCE_MM = 0.01
_DIRECTION_TOLERANCE = 1e-3
_DRIFT_PIXELS = 0.5
# What may tell apart images of one series at one position, in the order in which it is tried.
PARTING = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "AcquisitionTime",
    "ContrastBolusAgent",
    "ConvolutionKernel",
    "KVP",
    "SliceThickness",
    "ImageType",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """One slice: a file, or a frame of one, with its own header. `frame` counts from 0; None where the file is one."""

    source: SourceSlice
    file: FileHeader
    header: Dataset
    frame: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """Images along their normal, and their grid. `name` tells the stacks of one series apart, "" of an only one."""

    name: str
    images: tuple[Image, ...]
    geometry: Geometry


Pixels = Callable[[Image], NDArray[np.int16]]


def stacks_of(images: Sequence[Image], pixels: Pixels) -> tuple[list[Stack], list[Image]]:
    """Return the stacks of a series, and the copies that were dropped.

    `pixels` decodes an image; it is asked only for images that share a position. Raises SeriesError, StudyError.
    """
    places = _places(images)
    if all(len(place) == 1 for place in places):
        return [_stack("", images)], []
    kept, copies = _without_copies(places, pixels, same_instance=True)
    stacks = [_stack("", _flat(kept))] if all(len(place) == 1 for place in kept) else _parted(kept)
    if stacks is None:
        kept, more = _without_copies(kept, pixels, same_instance=False)
        copies += more
        stacks = [_stack("", _flat(kept))]  # says what is wrong where two are left at one position
    return stacks, copies


def _stack(name: str, images: Sequence[Image]) -> Stack:
    ordered, geometry = _arranged(list(images))
    seen = Counter((str(needed(i.header, "SOPInstanceUID", i.source.path)), i.frame) for i in ordered)
    (instance, _), most = seen.most_common(1)[0]
    if most > 1:
        twice = [image.source.path for image in ordered if str(image.header.SOPInstanceUID) == instance]
        raise SeriesError(
            f"{twice[0]} and {twice[1].name}: one SOPInstanceUID at two positions; need one each. "
            "Export the series again, or leave it out.",
            reason="same-instance",
        )
    return Stack(name=name, images=tuple(ordered), geometry=geometry)


def _places(images: Sequence[Image]) -> list[list[Image]]:
    """Return the images by their place along the normal of the first; in one place within a hundredth of a mm."""
    direction = _numbers(images[0], "ImageOrientationPatient", 6)
    normal = np.cross(direction[:3], direction[3:])
    distance = np.array([_numbers(image, "ImagePositionPatient", 3) @ normal for image in images])
    found: list[list[Image]] = []
    for before, k in pairwise([-1, *np.argsort(distance, kind="stable").tolist()]):
        if before >= 0 and distance[k] - distance[before] < _SPACING_TOLERANCE_MM:
            found[-1].append(images[k])
        else:
            found.append([images[k]])
    return found


def _without_copies(
    places: Sequence[Sequence[Image]], pixels: Pixels, *, same_instance: bool
) -> tuple[list[list[Image]], list[Image]]:
    """Drop images whose HU, position and orientation are those of another (`same_instance`: and whose UID is)."""
    kept: list[list[Image]] = []
    copies: list[Image] = []
    # one with a mask is kept before one without; two with a mask are both kept, and refused further on
    sorted_places = [sorted(place, key=lambda image: image.source.mask is None) for place in places]
    shared = _flat([place for place in sorted_places if len(place) > 1])
    keys = {id(image): _likeness(image, pixels, same_instance=same_instance) for image in shared}
    for place in sorted_places:
        if len(place) == 1:
            kept.append(place)
            continue
        first: dict[tuple[str, ...], Image] = {}
        for image in place:
            key = keys[id(image)]
            if key in first and image.source.mask is None:
                copies.append(image)
            else:
                first[(*key, str(image.source.path)) if key in first else key] = image
        kept.append(list(first.values()))
    return kept, copies


def _likeness(image: Image, pixels: Pixels, *, same_instance: bool) -> tuple[str, ...]:
    place = [_numbers(image, name, n) for name, n in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6))]
    uid = text_of(image.header, "SOPInstanceUID", image.source.path) if same_instance else ""
    grid = str(np.concatenate(place).round(3).tolist())
    return uid, grid, hashlib.sha256(pixels(image).tobytes()).hexdigest()


def _parted(places: Sequence[Sequence[Image]]) -> list[Stack] | None:
    """Return one stack per value of the first of `PARTING` that makes regular stacks of two images or more."""
    for name in PARTING:
        groups: dict[str, list[Image]] = defaultdict(list)
        for image in _flat(places):
            value = optional(image.header, name, image.source.path)
            groups["" if value is None else str(value).strip()].append(image)
        least = min(len(places), 2)
        if "" in groups or len(groups) < 2 or min(map(len, groups.values())) < least:
            continue
        try:
            return [_stack(f"{name} {value}", groups[value]) for value in sorted(groups, key=_natural)]
        except StudyError:
            continue
    return None


def _flat(places: Sequence[Sequence[Image]]) -> list[Image]:
    return [image for place in places for image in place]


def _natural(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return np.inf, value


def _arranged(images: list[Image]) -> tuple[list[Image], Geometry]:
    """Sort along the normal of the slices and measure the grid (PS3.3 C.7.6.2.1.1)."""
    first = images[0]
    frame = _frame(first)
    for image in images[1:]:
        _check_same_frame(first, frame, image)
    along_column, along_row = frame.direction[:3], frame.direction[3:]
    normal = np.cross(along_column, along_row)
    places = np.array([_numbers(image, "ImagePositionPatient", 3) for image in images])
    distance = places @ normal
    order = np.argsort(distance, kind="stable")
    ordered = [images[k] for k in order]
    slice_mm = _spacing_mm(ordered, distance[order])
    drift = (places - places[order[0]]) @ np.stack((along_column, along_row), axis=1)
    if np.abs(drift).max() > _DRIFT_PIXELS * min(frame.spacing_mm):
        raise SeriesError(
            f"{first.source.path.parent}: slices shift by up to {np.abs(drift).max():.1f} mm sideways "
            f"({_cause(drift[order], distance[order], min(frame.spacing_mm))}); "
            "need a straight stack. Resample the series, or leave it out.",
            reason="tilt",
        )
    geometry = Geometry(
        shape=(len(images), *frame.size),
        spacing_mm=(slice_mm, *frame.spacing_mm),
        direction_lps=(_vector(normal), _vector(along_row), _vector(along_column)),
    )
    return ordered, geometry


def _cause(drift: NDArray[np.float64], distance: NDArray[np.float64], pixel_mm: float) -> str:
    """Return what shifts the slices, (slice, axis) in mm: a tilted gantry shifts each by as much as the one before."""
    along = distance - distance[0]
    per_mm = (along @ drift) / (along @ along)
    if np.abs(drift - np.outer(along, per_mm)).max() > _DRIFT_PIXELS * pixel_mm:
        return "not evenly"
    return f"gantry tilt of {np.degrees(np.arctan(np.linalg.norm(per_mm))):.1f} degrees"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Frame:
    """What all slices of a series share."""

    size: tuple[int, int]
    spacing_mm: tuple[float, float]
    direction: NDArray[np.float64]


def _frame(image: Image) -> _Frame:
    path = image.source.path
    rows, columns = (whole(image.header, name, path) for name in ("Rows", "Columns"))
    y, x = (float(n) for n in _numbers(image, "PixelSpacing", 2))
    direction = _numbers(image, "ImageOrientationPatient", 6)
    gram = np.array([direction[:3] @ direction[:3], direction[3:] @ direction[3:], direction[:3] @ direction[3:]])
    if min(rows, columns) < 1 or min(x, y) <= 0 or np.abs(gram - [1, 1, 0]).max() > _DIRECTION_TOLERANCE:
        raise SeriesError(
            f"{path}: {rows} x {columns} pixels of {y:g} x {x:g} mm, orientation {direction.tolist()}; need positive "
            "sizes and two perpendicular unit vectors. Correct the header, or leave the series out.",
            reason="header",
        )
    return _Frame(size=(rows, columns), spacing_mm=(y, x), direction=direction)


def _check_same_frame(first: Image, frame: _Frame, image: Image) -> None:
    other = _frame(image)
    for what, a, b, tolerance in (
        ("size (rows, columns)", frame.size, other.size, 0.0),
        ("pixel spacing, mm", frame.spacing_mm, other.spacing_mm, 1e-4),
        ("orientation", frame.direction.tolist(), other.direction.tolist(), _DIRECTION_TOLERANCE),
    ):
        if np.abs(np.subtract(a, b)).max() > tolerance:
            raise SeriesError(
                f"{image.source.path}: {what} {_short(b)}, but {_short(a)} in {first.source.path.name} of the same "
                "series; need one. Split the series.",
                reason="mixed-grid",
            )


def _spacing_mm(ordered: list[Image], distance: NDArray[np.float64]) -> float:
    """Return the distance between slices. Raises SeriesError where it is not one value."""
    if len(ordered) == 1:
        return _thickness_mm(ordered[0])
    steps = np.diff(distance)
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])  # of two steps the smaller: the other has a gap
    allowed = max(_SPACING_TOLERANCE * usual, _SPACING_TOLERANCE_MM) + _rounding_mm(ordered)
    pairs = [f"{a.source.path} and {b.source.path.name}" for a, b in pairwise(ordered)]
    if steps.min() < _SPACING_TOLERANCE_MM:
        pair, place = pairs[int(np.argmin(steps))], distance[int(np.argmin(steps))]
        raise SeriesError(
            f"{pair}: both at {place:.2f} mm; need one slice per position. Remove one.", reason="same-position"
        )
    for pair, step in zip(pairs, steps, strict=True):
        if abs(step - usual) <= allowed:
            continue
        missing = round(step / usual) - 1
        if missing > 0 and abs(step - (missing + 1) * usual) <= (missing + 1) * allowed:
            raise SeriesError(
                f"{pair}: {step:.2f} mm apart where the series has a slice every {usual:.2f} mm; "
                f"{missing} missing. Add the missing slices, or split the series there.",
                reason="missing-slice",
            )
        raise SeriesError(
            f"{ordered[0].source.path.parent}: slice spacing {steps.min():.2f} to {steps.max():.2f} mm "
            f"(at {pair}); need one value. Split the series, or resample it.",
            reason="varying-spacing",
        )
    return float((distance[-1] - distance[0]) / (len(ordered) - 1))


def _thickness_mm(image: Image) -> float:
    try:
        thickness = float(optional(image.header, "SliceThickness", image.source.path) or 0.0)
    except (TypeError, ValueError):
        thickness = 0.0
    if not 0 < thickness < np.inf:
        raise SeriesError(
            f"{image.source.path}: the only slice of its series and no SliceThickness; need one of them. "
            "Add the other slices, or leave the series out.",
            reason="single-slice",
        )
    return thickness


def _rounding_mm(ordered: list[Image]) -> float:
    """Return the last decimal place in which positions are written: two of them differ by up to that much."""
    texts = [str(n) for image in ordered for n in image.header.ImagePositionPatient]
    if any("e" in text.lower() for text in texts):
        return 0.0
    return float(10.0 ** -max(len(text.partition(".")[2]) for text in texts))


def _numbers(image: Image, name: str, count: int) -> NDArray[np.float64]:
    value = needed(image.header, name, image.source.path)
    try:
        numbers = np.array([float(n) for n in value])
    except (TypeError, ValueError):
        numbers = np.zeros(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise SeriesError(f"{image.source.path}: {name} is not {count} numbers. Correct the header.", reason="header")
    return numbers


def _vector(axis: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (round(float(n), 9) + 0.0 for n in axis)
    return (x, y, z)


def _short(values: Any) -> str:
    return ", ".join(f"{v:g}" for v in values)
