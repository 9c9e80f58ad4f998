"""Where the frames of a DICOM Segmentation lie in the patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from slicestream.dicom.annotations.drawing import SeriesPlace
from slicestream.dicom.annotations.grids import Stack, index_of, is_same_grid, point_of
from slicestream.errors import AnnotationError

_DIRECTION_TOLERANCE = 1e-3
_SAME_PLACE_MM = 0.01
_MOST_PIXELS = 1 << 24  # of a frame


@dataclass(frozen=True, kw_only=True, slots=True)
class Frames:
    """Every frame of a file, in the file's order.

    Attributes
    ----------
    segments : the segment of each frame, 0 in a label map
    first_lps_mm : (frame, 3), centre of the first voxel
    direction_lps, spacing_mm : as in `grids.Stack`
    size : rows, columns
    """

    segments: tuple[int, ...]
    first_lps_mm: NDArray[np.float64]
    direction_lps: NDArray[np.float64]
    spacing_mm: tuple[float, float, float]
    size: tuple[int, int]
    notes: tuple[str, ...] = ()

    def stack(self, planes: NDArray[np.bool_], numbers: Sequence[int]) -> Stack:
        """Return these planes as they lie; `numbers` says which frame each of them is."""
        return Stack(
            planes=planes,
            first_lps_mm=self.first_lps_mm[list(numbers)],
            direction_lps=self.direction_lps,
            spacing_mm=self.spacing_mm,
        )


def frames_of(dataset: Dataset, place: SeriesPlace, path: Path, *, same_series: bool) -> Frames:
    """Return where the frames lie. `same_series`: the file says that it was drawn on the series of `place`.

    Raises AnnotationError where a frame has no place, or frames differ in orientation or pixel spacing.
    """
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    rows, columns, count = int(dataset.Rows), int(dataset.Columns), int(dataset.get("NumberOfFrames") or 1)
    if not 0 < rows * columns <= _MOST_PIXELS or count != len(groups) or not groups:
        raise AnnotationError(
            f"{path}: {count} frames of {rows} x {columns} pixels, {len(groups)} of them described; need all of them "
            f"described, of {_MOST_PIXELS} pixels at most. Write the file again."
        )
    # of a multi-frame source all slices have one instance, which then says nothing
    times = Counter(place.instance_uids)
    slices = {uid: index for index, uid in enumerate(place.instance_uids) if times[uid] == 1}
    derived = [_source_slice(group, shared, slices) for group in groups]
    given = [_vector(group, shared, "PlanePositionSequence", "ImagePositionPatient", 3) for group in groups]
    if all(position is not None for position in given):
        frames = _by_position(given, groups, shared, path)
    else:
        frames = _by_source(given, derived, (rows, columns), place, path)
    segments = tuple(_segment(group, shared, dataset, path) for group in groups)
    frames = replace(frames, segments=segments, size=(rows, columns))
    return _with_reach(frames, _measure(groups[0], shared, "SpacingBetweenSlices"), derived, place, same_series)


def _by_position(
    given: Sequence[NDArray[np.float64] | None], groups: Sequence[Dataset], shared: Dataset, path: Path
) -> Frames:
    planes = [_plane(group, shared, path) for group in groups]
    first = planes[0]
    for number, plane in enumerate(planes, start=1):
        if np.abs(plane - first).max() > _DIRECTION_TOLERANCE:
            raise AnnotationError(
                f"{path}: frame {number} has another orientation or pixel spacing than frame 1; need one grid. "
                "Split the file."
            )
    along_column, along_row = first[:3], first[3:6]
    return Frames(
        segments=(),
        first_lps_mm=np.array(given),
        direction_lps=np.stack((np.cross(along_column, along_row), along_row, along_column)),
        spacing_mm=(1.0, float(first[6]), float(first[7])),
        size=(0, 0),
    )


def _by_source(
    given: Sequence[NDArray[np.float64] | None],
    derived: Sequence[int | None],
    size: tuple[int, int],
    place: SeriesPlace,
    path: Path,
) -> Frames:
    lost = [n for n, (a, b) in enumerate(zip(given, derived, strict=True), start=1) if a is None and b is None]
    if lost or size != place.geometry.shape[1:] or any(index is None for index in derived):
        raise AnnotationError(
            f"{path}: frame {[*lost, 1][0]} of {size[0]} x {size[1]} pixels has no ImagePositionPatient and no source "
            f"image of that size in series {place.uid}; need one of them. Write the file again with positions."
        )
    return Frames(
        segments=(),
        first_lps_mm=np.array([point_of(place, np.array([float(index or 0), 0.0, 0.0])) for index in derived]),
        direction_lps=np.asarray(place.geometry.direction_lps),
        spacing_mm=place.geometry.spacing_mm,
        size=size,
        notes=("frames without ImagePositionPatient were placed by their source images",),
    )


def _with_reach(
    frames: Frames, stated_mm: float | None, derived: Sequence[int | None], place: SeriesPlace, same_series: bool
) -> Frames:
    """Add how far a frame reaches to each side, and a note where frames lie on other slices than they name."""
    along = np.sort(frames.first_lps_mm @ frames.direction_lps[0])
    gaps = np.diff(along)
    gap = float(gaps[gaps > _SAME_PLACE_MM].min(initial=np.inf))
    axis = int(np.abs(np.asarray(place.geometry.direction_lps) @ frames.direction_lps[0]).argmax())
    own = place.geometry.spacing_mm[axis]
    whole = frames.stack(np.broadcast_to(np.False_, (len(along), *frames.size)), range(len(along)))
    between = min(stated_mm, gap) if stated_mm else gap
    on_grid = is_same_grid(whole, place)
    if on_grid and (same_series or not np.isfinite(between) or between <= 1.1 * own):
        between = own  # what lies between the frames are slices on which nothing is marked
    elif not np.isfinite(between):
        between = own
    slices = index_of(place, frames.first_lps_mm)[:, 0]
    off = sum(abs(k - slices[n]) > 0.5 for n, k in enumerate(derived) if k is not None)
    notes = [f"{off} frames lie on another slice than the source image that they name; placed by position"] * bool(off)
    return replace(frames, spacing_mm=(between, *frames.spacing_mm[1:]), notes=(*frames.notes, *notes))


def _plane(group: Dataset, shared: Dataset, path: Path) -> NDArray[np.float64]:
    """Return orientation (6) and row and column spacing in mm (2). Raises AnnotationError."""
    direction = _vector(group, shared, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = _vector(group, shared, "PixelMeasuresSequence", "PixelSpacing", 2)
    if direction is None or spacing is None or spacing.min() <= 0:
        raise AnnotationError(
            f"{path}: no ImageOrientationPatient or PixelSpacing for its frames; need both. Write the file again."
        )
    x, y = direction[:3], direction[3:]
    if np.abs(np.array([x @ x, y @ y, x @ y]) - [1, 1, 0]).max() > _DIRECTION_TOLERANCE:
        raise AnnotationError(
            f"{path}: ImageOrientationPatient {direction.tolist()}; need two perpendicular unit vectors. "
            "Write the file again."
        )
    return np.concatenate((direction, spacing))


def _source_slice(group: Dataset, shared: Dataset, slices: Mapping[str, int]) -> int | None:
    """Return which slice of the series a frame names as its source; None where it names none, or not one alone."""
    found = set()
    for derivation in _item_list(group, shared, "DerivationImageSequence"):
        for source in derivation.get("SourceImageSequence") or ():
            uid = str(source.get("ReferencedSOPInstanceUID", ""))
            if uid in slices:
                found.add(slices[uid])
    return found.pop() if len(found) == 1 else None


def _segment(group: Dataset, shared: Dataset, dataset: Dataset, path: Path) -> int:
    if dataset.SegmentationType == "LABELMAP":
        return 0
    items = _item_list(group, shared, "SegmentIdentificationSequence")
    if len(items) != 1:
        raise AnnotationError(f"{path}: a frame that names {len(items)} segments; need one. Write the file again.")
    return int(items[0].ReferencedSegmentNumber)


def _measure(group: Dataset, shared: Dataset, keyword: str) -> float | None:
    """Return a positive number of the pixel measures, None where there is none."""
    for item in _item_list(group, shared, "PixelMeasuresSequence"):
        value = float(item.get(keyword) or 0)
        if 0 < abs(value) < np.inf:
            return abs(value)
    return None


def _vector(group: Dataset, shared: Dataset, sequence: str, keyword: str, count: int) -> NDArray[np.float64] | None:
    items = _item_list(group, shared, sequence)
    value: Any = items[0].get(keyword) if items else None
    if value is None or len(value) != count:
        return None
    numbers = np.array([float(n) for n in value])
    if not np.isfinite(numbers).all():
        raise ValueError(f"{keyword} is {numbers.tolist()}")
    return numbers


def _item_list(group: Dataset, shared: Dataset, sequence: str) -> list[Dataset]:
    return list(group.get(sequence) or shared.get(sequence) or ())
