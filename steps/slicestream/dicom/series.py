"""The slices of a series to one regular volume, in the order of their positions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from slicestream.dicom.files import needed, optional, read_dicom, text_of, whole
from slicestream.dicom.identity import strip_pixels
from slicestream.dicom.pixels import check_plain_grey, empty_volume, read_hounsfield
from slicestream.dicom.study import Batch, SourceSlice, check_ct
from slicestream.errors import SeriesError, StudyError
from slicestream.volumes.geometry import Geometry

_SPACING_TOLERANCE = 0.01  # of the spacing
_SPACING_TOLERANCE_MM = 0.01
_DIRECTION_TOLERANCE = 1e-3
_DRIFT_PIXELS = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A series in volume order.

    Attributes
    ----------
    headers : pixel-less, one per slice
    hu : int16 (slice, row, column); None where only the headers were asked for
    """

    uid: str
    slices: tuple[SourceSlice, ...]
    headers: tuple[Dataset, ...]
    geometry: Geometry
    hu: NDArray[np.int16] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Image:
    source: SourceSlice
    dataset: Dataset


def read_series(batch: Batch, *, pixels: bool = True) -> Iterator[Series]:
    """Yield every series of a batch. Raises StudyError, SeriesError, each naming the file."""
    grouped: dict[str, list[_Image]] = defaultdict(list)
    patients: dict[str, SourceSlice] = {}
    for source in batch.slices:
        dataset = read_dicom(source.path, stop_before_pixels=True)  # pixels are read one slice at a time
        check_ct(dataset, source.path)
        patients.setdefault(text_of(dataset, "PatientID", source.path), source)
        if len(patients) > 1:
            raise StudyError(
                f"{source.path}: another PatientID than {next(iter(patients.values())).path.name}, but both are "
                f"{batch.name}; need one patient. Correct the table or the headers."
            )
        grouped[str(needed(dataset, "SeriesInstanceUID", source.path))].append(_Image(source=source, dataset=dataset))
    for uid, images in sorted(grouped.items()):
        yield _series(uid, images, pixels=pixels)


def _series(uid: str, images: list[_Image], *, pixels: bool) -> Series:
    ordered, geometry = _arranged(images)
    hu: NDArray[np.int16] | None = None
    if pixels:
        for image in ordered:
            check_plain_grey(image.dataset, image.source.path)
        hu = empty_volume(geometry.shape, ordered[0].source.path)
    for index, image in enumerate(ordered):
        if hu is not None:
            hu[index] = read_hounsfield(image.source.path)
        strip_pixels(image.dataset)
    return Series(
        uid=uid,
        slices=tuple(image.source for image in ordered),
        headers=tuple(image.dataset for image in ordered),
        geometry=geometry,
        hu=hu,
    )


def _arranged(images: list[_Image]) -> tuple[list[_Image], Geometry]:
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
            f"{first.source.path.parent}: slices shift by up to {np.abs(drift).max():.1f} mm sideways (tilt?); "
            "need a straight stack. Resample the series, or leave it out."
        )
    geometry = Geometry(
        shape=(len(images), *frame.size),
        spacing_mm=(slice_mm, *frame.spacing_mm),
        direction_lps=(_vector(normal), _vector(along_row), _vector(along_column)),
    )
    return ordered, geometry


@dataclass(frozen=True, kw_only=True, slots=True)
class _Frame:
    """What all slices of a series share."""

    size: tuple[int, int]
    spacing_mm: tuple[float, float]
    direction: NDArray[np.float64]


def _frame(image: _Image) -> _Frame:
    path = image.source.path
    rows, columns = (whole(image.dataset, name, path) for name in ("Rows", "Columns"))
    y, x = (float(n) for n in _numbers(image, "PixelSpacing", 2))
    direction = _numbers(image, "ImageOrientationPatient", 6)
    gram = np.array([direction[:3] @ direction[:3], direction[3:] @ direction[3:], direction[:3] @ direction[3:]])
    if min(rows, columns) < 1 or min(x, y) <= 0 or np.abs(gram - [1, 1, 0]).max() > _DIRECTION_TOLERANCE:
        raise SeriesError(
            f"{path}: {rows} x {columns} pixels of {y:g} x {x:g} mm, orientation {direction.tolist()}; need positive "
            "sizes and two perpendicular unit vectors. Correct the header, or leave the series out."
        )
    return _Frame(size=(rows, columns), spacing_mm=(y, x), direction=direction)


def _check_same_frame(first: _Image, frame: _Frame, image: _Image) -> None:
    other = _frame(image)
    for what, a, b, tolerance in (
        ("size (rows, columns)", frame.size, other.size, 0.0),
        ("pixel spacing, mm", frame.spacing_mm, other.spacing_mm, 1e-4),
        ("orientation", frame.direction.tolist(), other.direction.tolist(), _DIRECTION_TOLERANCE),
    ):
        if np.abs(np.subtract(a, b)).max() > tolerance:
            raise SeriesError(
                f"{image.source.path}: {what} {_short(b)}, but {_short(a)} in {first.source.path.name} of the same "
                "series; need one. Split the series."
            )


def _spacing_mm(ordered: list[_Image], distance: NDArray[np.float64]) -> float:
    """Return the distance between slices. Raises SeriesError where it is not one value."""
    if len(ordered) == 1:
        return _thickness_mm(ordered[0])
    steps = np.diff(distance)
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])  # of two steps the smaller: the other has a gap
    allowed = max(_SPACING_TOLERANCE * usual, _SPACING_TOLERANCE_MM) + _rounding_mm(ordered)
    pairs = [f"{a.source.path} and {b.source.path.name}" for a, b in pairwise(ordered)]
    if steps.min() < _SPACING_TOLERANCE_MM:
        pair, place = pairs[int(np.argmin(steps))], distance[int(np.argmin(steps))]
        raise SeriesError(f"{pair}: both at {place:.2f} mm; need one slice per position. Remove one.")
    for pair, step in zip(pairs, steps, strict=True):
        if abs(step - usual) <= allowed:
            continue
        missing = round(step / usual) - 1
        if missing > 0 and abs(step - (missing + 1) * usual) <= (missing + 1) * allowed:
            raise SeriesError(
                f"{pair}: {step:.2f} mm apart where the series has a slice every {usual:.2f} mm; "
                f"{missing} missing. Add the missing slices, or split the series there."
            )
        raise SeriesError(
            f"{ordered[0].source.path.parent}: slice spacing {steps.min():.2f} to {steps.max():.2f} mm "
            f"(at {pair}); need one value. Split the series, or resample it."
        )
    return float((distance[-1] - distance[0]) / (len(ordered) - 1))


def _thickness_mm(image: _Image) -> float:
    try:
        thickness = float(optional(image.dataset, "SliceThickness", image.source.path) or 0.0)
    except (TypeError, ValueError):
        thickness = 0.0
    if not 0 < thickness < np.inf:
        raise SeriesError(
            f"{image.source.path}: the only slice of its series and no SliceThickness; need one of them. "
            "Add the other slices, or leave the series out."
        )
    return thickness


def _rounding_mm(ordered: list[_Image]) -> float:
    """Return the last decimal place in which positions are written: two of them differ by up to that much."""
    texts = [str(n) for image in ordered for n in image.dataset.ImagePositionPatient]
    if any("e" in text.lower() for text in texts):
        return 0.0
    return float(10.0 ** -max(len(text.partition(".")[2]) for text in texts))


def _numbers(image: _Image, name: str, count: int) -> NDArray[np.float64]:
    value = needed(image.dataset, name, image.source.path)
    try:
        numbers = np.array([float(n) for n in value])
    except (TypeError, ValueError):
        numbers = np.zeros(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise SeriesError(f"{image.source.path}: {name} is not {count} numbers. Correct the header.")
    return numbers


def _vector(axis: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (round(float(n), 9) + 0.0 for n in axis)
    return (x, y, z)


def _short(values: Any) -> str:
    return ", ".join(f"{v:g}" for v in values)
