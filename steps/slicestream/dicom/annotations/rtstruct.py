"""DICOM RT Structure Set (PS3.3 C.8.8.5 and C.8.8.6): closed planar contours and points.

Contours belong to the slice that they lie on, by position and within half the distance between slices, in the series'
own frame, oblique or not. Contours of one plane are combined as `polygons` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from slicestream.dicom.annotations.choosing import listed, matching
from slicestream.dicom.annotations.drawing import Drawing, SeriesPlace
from slicestream.dicom.annotations.grids import LEAST_INSIDE, index_of, is_inside
from slicestream.dicom.annotations.opening import series_named, shares_frame, telling
from slicestream.dicom.annotations.painting import Shape, paint
from slicestream.dicom.annotations.polygons import crossing, filled
from slicestream.dicom.files import read_dicom
from slicestream.errors import AnnotationError

SOP_CLASSES = ("1.2.840.10008.5.1.4.1.1.481.3",)
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_FLAT = 0.2  # of the distance between slices: more than rounding tilts a contour
_ONE_PLANE = 0.05  # of the distance between slices
_OFF_CENTRE = 0.1  # of the distance between slices: worth a note
_FARTHEST = 1e6  # voxels


@dataclass(frozen=True, kw_only=True, slots=True)
class _Structure:
    """One region of interest."""

    name: str
    frame_of_reference_uid: str
    contours: tuple[Dataset, ...]


def referenced(path: Path) -> str | None:
    """Return the SeriesInstanceUID that the file was drawn on, "" where it names none, None where it is no RTSTRUCT."""
    return series_named(path, SOP_CLASSES, "ReferencedFrameOfReferenceSequence", _referenced_series)


def read(path: Path, place: SeriesPlace, *, structure: str | None = None) -> Drawing:
    """Return the chosen structures as nodules, one each; `structure` chooses by name (see `choosing.matching`).

    Without it there must be one structure only. Each POINT is a nodule without an outline. Raises AnnotationError.
    """
    with telling(path, "a DICOM RT Structure Set"):
        dataset = read_dicom(path)
        if dataset.SOPClassUID not in SOP_CLASSES:
            raise AnnotationError(f"{path}: {dataset.SOPClassUID.name}; need an RT Structure Set. Leave the file out.")
        structures, notes = _chosen(_structures(dataset), structure, path)
        same_series = place.uid in _referenced_series(dataset)
        shapes: list[Shape] = []
        for one in structures:
            shares_frame(one.frame_of_reference_uid, place, path, same_series=same_series)
            found, said = _shapes(one, place, path)
            shapes += found
            notes += said
        if not same_series and _referenced_series(dataset):
            notes.append("drawn on another series of the same frame of reference")
        return paint(shapes, place, notes)


def _shapes(structure: _Structure, place: SeriesPlace, path: Path) -> tuple[list[Shape], list[str]]:
    closed: list[NDArray[np.float64]] = []
    single: list[NDArray[np.float64]] = []
    others = 0
    for contour in structure.contours:
        kind = str(contour.get("ContourGeometricType", ""))
        points = np.array([float(n) for n in contour.get("ContourData") or ()]).reshape(-1, 3)
        if not len(points) or not np.isfinite(points).all():
            raise AnnotationError(
                f"{path}: {listed([structure.name])} has a contour of {len(points)} points that are no places; need "
                "x, y, z in mm each. Write the file again."
            )
        if kind == "POINT":
            single += list(points)
        elif kind in _CLOSED:
            closed.append(index_of(place, points))
        else:
            others += 1
    name = structure.name
    if not closed and not single:
        raise AnnotationError(
            f"{path}: {listed([name])} has no closed contour and no point ({others} of other kinds); need one. "
            "Choose another with --structure."
        )
    notes = [f"{listed([name])}: {others} contours that are not closed, left out"] * bool(others)
    if closed:
        notes += [f"{listed([name])}: {len(single)} points beside its contours, left out"] * bool(single)
        shape, said = _outline(name, closed, place, path)
        return [shape], notes + said
    if not is_inside(place, index_of(place, np.array(single))).all():
        raise AnnotationError(
            f"{path}: a point of {listed([name])} lies outside series {place.uid}; need all within. "
            "Give the file with the series that it was drawn on."
        )
    return [Shape(name=name, voxels=np.zeros(0, np.intp), centre_lps_mm=_place(point)) for point in single], notes


def _outline(
    name: str, contours: Sequence[NDArray[np.float64]], place: SeriesPlace, path: Path
) -> tuple[Shape, list[str]]:
    """Return the voxels that contours enclose; each (point, (slice, row, column))."""
    _check_planar(name, contours, place, path)
    planes, notes = _by_slice(name, contours, place)
    size = place.geometry.shape[1:]
    found = [np.zeros(0, np.intp)]
    crossed = 0
    for index, outlines in sorted(planes.items()):
        crossed += len(outlines) > 1 and crossing(outlines, size)
        found.append(index * size[0] * size[1] + np.flatnonzero(filled(outlines, size)))
    if crossed:
        notes.append(f"{listed([name])}: contours cross on {crossed} slices; what two of them share counts as outside")
    voxels = np.concatenate(found)
    if len(voxels):
        return Shape(name=name, voxels=voxels), notes
    notes.append(f"{listed([name])} encloses no voxel centre: kept as a place without an outline")
    centre = np.concatenate(contours).mean(axis=0)
    point = np.asarray(place.origin_lps_mm) + place.geometry.offset_lps_mm(centre)
    return Shape(name=name, voxels=voxels, centre_lps_mm=_place(point)), notes


def _check_planar(name: str, contours: Sequence[NDArray[np.float64]], place: SeriesPlace, path: Path) -> None:
    points = np.concatenate(contours)
    share = float(is_inside(place, points).mean())
    if share < LEAST_INSIDE or np.abs(points).max() > _FARTHEST:
        raise AnnotationError(
            f"{path}: {share:.0%} of the points of {listed([name])} lie within series {place.uid}; need at least "
            f"{LEAST_INSIDE:.0%}. Give the file with the series that it was drawn on."
        )
    tilt = max(float(np.ptp(contour[:, 0])) for contour in contours)
    if tilt > _FLAT:
        raise AnnotationError(
            f"{path}: a contour of {listed([name])} runs over {tilt:.1f} slices; need contours that lie on the slices. "
            "Give the file with the series that it was drawn on, or draw it on this one."
        )


def _by_slice(
    name: str, contours: Sequence[NDArray[np.float64]], place: SeriesPlace
) -> tuple[dict[int, list[NDArray[np.float64]]], list[str]]:
    """Return the outlines (point, (row, column)) of each slice: those of the nearest plane."""
    heights = np.array([contour[:, 0].mean() for contour in contours])
    nearest: dict[int, float] = {}
    for height in heights:
        index = int(np.floor(height + 0.5))
        closer = abs(height - index) < abs(nearest.get(index, np.inf) - index)
        if 0 <= index < place.geometry.shape[0] and closer:
            nearest[index] = float(height)
    planes: dict[int, list[NDArray[np.float64]]] = {index: [] for index in nearest}
    between = doubled = outside = 0
    seen: set[tuple[int, bytes]] = set()
    for contour, height in zip(contours, heights, strict=True):
        index = int(np.floor(height + 0.5))
        key = (index, contour.tobytes())
        if index not in nearest:
            outside += 1
        elif abs(height - nearest[index]) > _ONE_PLANE:
            between += 1
        elif key in seen:
            doubled += 1
        else:
            seen.add(key)
            planes[index].append(contour[:, 1:])
    off = max((abs(height - index) for index, height in nearest.items()), default=0.0)
    gaps = max(planes) - min(planes) + 1 - len(planes) if planes else 0
    said = {
        f"{outside} contours lie outside the series, left out": outside,
        f"{between} contours lie between slices, farther from them than others, left out": between,
        f"{doubled} contours stand there twice, taken once": doubled,
        f"contours lie up to {off:.2f} of the slice distance off the slices": off > _OFF_CENTRE,
        f"{gaps} slices between its first and last have no contour and stay empty": gaps,
    }
    return planes, [f"{listed([name])}: {text}" for text, count in said.items() if count]


def _structures(dataset: Dataset) -> list[_Structure]:
    contours = {
        int(i.ReferencedROINumber): tuple(i.get("ContourSequence") or ()) for i in _items(dataset, "ROIContour")
    }
    frames = [str(item.get("FrameOfReferenceUID", "")) for item in _items(dataset, "ReferencedFrameOfReference")]
    usual = frames[0] if len(frames) == 1 else ""
    return [
        _Structure(
            name=str(item.get("ROIName") or "").strip() or f"structure {item.ROINumber}",
            frame_of_reference_uid=str(item.get("ReferencedFrameOfReferenceUID") or usual),
            contours=contours.get(int(item.ROINumber), ()),
        )
        for item in _items(dataset, "StructureSetROI")
    ]


def _chosen(structures: list[_Structure], pattern: str | None, path: Path) -> tuple[list[_Structure], list[str]]:
    drawn = [one for one in structures if one.contours]
    empty = [one.name for one in structures if not one.contours]
    notes = [f"structures without a contour, left out: {listed(empty)}"] if empty else []
    if not drawn:
        raise AnnotationError(
            f"{path}: {len(structures)} structures, none has a contour; need one. Leave the file out."
        )
    if pattern is None and len(drawn) > 1:
        raise AnnotationError(
            f"{path}: {len(drawn)} structures: {listed([one.name for one in drawn])}; need to know which are nodules. "
            "Choose with --structure."
        )
    if pattern is None:
        return drawn, [*notes, f"its only structure taken: {listed([drawn[0].name])}"]
    chosen = [drawn[n] for n in matching([(one.name,) for one in drawn], pattern)]
    if not chosen:
        raise AnnotationError(
            f"{path}: no structure with a contour matches '{pattern}'; need one of "
            f"{listed([one.name for one in drawn])}. Choose with --structure."
        )
    return chosen, [*notes, f"structures chosen by '{pattern}': {listed([one.name for one in chosen])}"]


def _referenced_series(dataset: Dataset) -> list[str]:
    return [
        str(series.get("SeriesInstanceUID", ""))
        for frame in _items(dataset, "ReferencedFrameOfReference")
        for study in _items(frame, "RTReferencedStudy")
        for series in _items(study, "RTReferencedSeries")
    ]


def _items(dataset: Dataset, name: str) -> list[Dataset]:
    return list(dataset.get(f"{name}Sequence") or ())


def _place(point: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(n) for n in point)
    return (x, y, z)
