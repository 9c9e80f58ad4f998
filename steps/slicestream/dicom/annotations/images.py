"""Masks as NIfTI, MetaImage (.mha, .mhd) or NRRD: labels by value, or one mask of separate nodules.

SimpleITK brings all three to LPS, as DICOM has it. Such a file does not say which series it was drawn on; that it lies
within the series is checked.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import SimpleITK
from numpy.typing import NDArray

from slicestream.dicom.annotations.drawing import Drawing, SeriesPlace
from slicestream.dicom.annotations.grids import Stack
from slicestream.dicom.annotations.image_headers import (
    check_metaimage,
    check_nifti_place,
    check_nifti_voxels,
    check_nrrd,
    read_nifti_header,
)
from slicestream.dicom.annotations.opening import telling
from slicestream.dicom.annotations.painting import Shape, paint
from slicestream.dicom.annotations.placing import grid_note, placed
from slicestream.errors import AnnotationError

_READERS = {".nii": "NiftiImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO", ".nrrd": "NrrdImageIO"}
_itk: Any = SimpleITK  # without types
_MOST_BYTES = 3 << 29  # 1.5 GiB: 1,500 slices of 512 x 512 in float32
_MOST_NODULES = 1000
_SKEW = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class _Image:
    """Values (plane, row, column) and where they lie, as in `grids.Stack`; `held` keeps the values' memory."""

    values: NDArray[Any]
    first_lps_mm: NDArray[np.float64]
    direction_lps: NDArray[np.float64]
    spacing_mm: tuple[float, float, float]
    held: Any


def referenced(path: Path) -> str | None:
    """Return "", since these formats name no series; None where the name is not that of such a file."""
    return "" if _suffix(path) in _READERS and path.is_file() else None


def read(path: Path, place: SeriesPlace, *, structure: str | None = None) -> Drawing:
    """Return each value as a nodule; where there is one value only, each of its 26-connected parts.

    `structure` takes some values only: "2", "1,3" or "1-4". Raises AnnotationError.
    """
    with telling(path, "an image"):
        image = _read(path)
        values = _values(image, path)
        wanted = _wanted(values, structure, path)
        if not wanted:
            return paint([], place, ["nothing is marked"])
        low, numbers = _numbered(image.values, wanted)
        if len(wanted) == 1:
            numbers = np.asarray(cc3d.connected_components(numbers, connectivity=26))
            names = [f"part {n + 1}" for n in range(int(numbers.max()))]
            notes = [f"value {wanted[0]}: each of its {len(names)} separate parts is a nodule"]
        else:
            names = [str(value) for value in wanted]
            notes = [f"each of its {len(names)} values is a nodule"]
        _check_count(len(names), path)
        if structure is not None:
            notes.append(f"values chosen by '{structure}'")
        shapes: list[Shape] = []
        for name, stack in zip(names, _stacks(image, low, numbers), strict=True):
            shape, said = placed(stack, name, place, path)
            shapes.append(shape)
            notes += said
        notes += grid_note(_whole(image), place)
        return paint(shapes, place, notes)


def _read(path: Path) -> _Image:
    """Return the voxels; their number and type are looked at before they are read."""
    reader = _itk.ImageFileReader()
    reader.SetImageIO(_READERS[_suffix(path)])
    reader.SetFileName(str(path))
    header = read_nifti_header(path) if _suffix(path) == ".nii" else None
    if header is None:
        (check_nrrd if _suffix(path) == ".nrrd" else check_metaimage)(path)
    with _quiet():
        reader.ReadImageInformation()
        _check_kind(reader, path)
        if header is not None:
            check_nifti_voxels(path, header, int(np.prod(reader.GetSize())))
        image = reader.Execute()
    axes = np.array(image.GetDirection()).reshape(3, 3)
    spacing, origin = np.array(image.GetSpacing()), np.array(image.GetOrigin())
    if np.abs(axes.T @ axes - np.eye(3)).max() > _SKEW or not np.isfinite([*spacing, *origin]).all():
        raise AnnotationError(
            f"{path}: axes {np.round(axes.T, 4).tolist()}, origin {origin.tolist()}; need perpendicular unit vectors "
            "and a place. Resample it without shear."
        )
    if header is not None:
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = axes * spacing, origin
        check_nifti_place(path, header, image.GetSize(), affine)
    values = _itk.GetArrayViewFromImage(image)  # axes (column, row, plane) become (plane, row, column)
    return _Image(
        values=values,
        first_lps_mm=origin + np.arange(len(values))[:, None] * (axes[:, 2] * spacing[2]),
        direction_lps=axes.T[::-1],
        spacing_mm=(float(spacing[2]), float(spacing[1]), float(spacing[0])),
        held=image,
    )


def _check_kind(reader: Any, path: Path) -> None:
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    kind = _itk.GetPixelIDValueAsString(reader.GetPixelIDValue())
    bits = re.search(r"\d+", kind)
    if len(size) != 3 or components != 1 or "complex" in kind or bits is None:
        raise AnnotationError(
            f"{path}: {len(size)} axes {tuple(size)} of {components} x {kind}; need 3 axes of one plain number each. "
            "Give one mask per file."
        )
    needed = int(np.prod([int(n) for n in size], dtype=object)) * int(bits[0]) // 8
    if not 0 < needed <= _MOST_BYTES:
        raise AnnotationError(
            f"{path}: {' x '.join(str(n) for n in size)} voxels of {kind} are {needed / 2**30:.1f} GiB; need at most "
            f"{_MOST_BYTES / 2**30:.1f} GiB. Write it with 8 bits, or crop it."
        )


def _values(image: _Image, path: Path) -> list[int]:
    """Return the values that are there but 0, ascending. Raises AnnotationError where they are no labels."""
    found: set[float] = set()
    for plane in image.values:
        some = np.unique(plane[plane != 0])  # NaN is not 0
        whole = image.values.dtype.kind in "ui"
        strange = some[some < 0] if whole else some[some != 1]
        if len(strange):
            needed = "labels of 0 and above" if whole else "0 and 1 only in a mask of type float, or whole numbers"
            raise AnnotationError(f"{path}: holds the value {strange[0]}; need {needed}. Convert it.")
        found.update(some.tolist())
        _check_count(len(found), path)
    return sorted(int(value) for value in found)


def _check_count(count: int, path: Path) -> None:
    if count > _MOST_NODULES:
        raise AnnotationError(
            f"{path}: over {_MOST_NODULES} different values or separate parts; need at most that many nodules. "
            "Check that it is a mask, and remove its speckles."
        )


def _wanted(values: list[int], structure: str | None, path: Path) -> list[int]:
    """Return the values that `structure` asks for. Raises AnnotationError where one of them is not there."""
    if structure is None:
        return values
    asked: list[int] = []
    for part in structure.split(","):
        found = re.fullmatch(r"\s*(\d{1,18})\s*(?:-\s*(\d{1,18})\s*)?", part)
        if not found:
            raise AnnotationError(
                f"{path}: --structure '{structure}' for a mask of values; need some such as 2, 1,3 or 1-4. Name them."
            )
        first, last = int(found[1]), int(found[2] or found[1])
        inside = [value for value in values if first <= value <= last]
        if not inside:
            raise AnnotationError(
                f"{path}: no voxel has the value {part.strip()} of --structure; there are "
                f"{', '.join(str(v) for v in values[:20]) or 'none but 0'}. Choose among them."
            )
        asked += inside
    return sorted(set(asked))


def _numbered(values: NDArray[Any], wanted: list[int]) -> tuple[NDArray[np.intp], NDArray[np.uint16]]:
    """Return the first index of the smallest box that holds all wanted values, and in it their numbers from 1."""
    used = np.zeros(len(values), np.bool_)
    rows, columns = (np.zeros(n, np.bool_) for n in values.shape[1:])
    for n, plane in enumerate(values):
        marked = np.isin(plane, wanted)
        used[n] = marked.any()
        rows |= marked.any(axis=1)
        columns |= marked.any(axis=0)
    low = np.array([int(axis.argmax()) for axis in (used, rows, columns)])
    high = [len(axis) - int(axis[::-1].argmax()) for axis in (used, rows, columns)]
    part = values[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    numbers = np.zeros(part.shape, np.uint16)
    for n, plane in enumerate(part):
        marked = np.isin(plane, wanted)
        numbers[n][marked] = np.searchsorted(wanted, plane[marked]) + 1
    return low, numbers


def _stacks(image: _Image, low: NDArray[np.intp], numbers: NDArray[Any]) -> Iterator[Stack]:
    """Yield the planes of number 1, 2, …"""
    boxes = cc3d.statistics(numbers, no_slice_conversion=False)["bounding_boxes"]
    for number, box in enumerate(boxes[1:], start=1):
        corner = low + np.array([side.start for side in box])
        yield _at(image, corner, numbers[box] == number)


def _at(image: _Image, corner: NDArray[np.intp], planes: NDArray[np.bool_]) -> Stack:
    steps = image.direction_lps[1:] * np.array(image.spacing_mm[1:])[:, None]
    first = image.first_lps_mm[corner[0] : corner[0] + len(planes)] + corner[1:] @ steps
    return Stack(planes=planes, first_lps_mm=first, direction_lps=image.direction_lps, spacing_mm=image.spacing_mm)


def _whole(image: _Image) -> Stack:
    return _at(image, np.zeros(3, np.intp), np.broadcast_to(np.False_, image.values.shape))


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".nii" if name.endswith(".nii.gz") else Path(name).suffix


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries below from writing to the terminal: what they say comes as one error of ours."""
    sys.stderr.flush()
    terminal = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(nowhere)
        os.close(terminal)
