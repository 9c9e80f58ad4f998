"""DICOM Segmentation (PS3.3 A.51): BINARY, FRACTIONAL and LABELMAP, any number of segments.

Frames lie where their Plane Position says, in whatever order they stand; ones without a position lie on the slice that
they were derived from. A place without a frame is empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.utils import iter_pixels

from slicestream.dicom.annotations.choosing import listed, matching
from slicestream.dicom.annotations.drawing import Drawing, SeriesPlace
from slicestream.dicom.annotations.frames import Frames, frames_of
from slicestream.dicom.annotations.opening import series_named, shares_frame, telling
from slicestream.dicom.annotations.painting import Shape, paint
from slicestream.dicom.annotations.placing import grid_note, placed
from slicestream.dicom.decoder import Frame, shared_decoders
from slicestream.dicom.files import read_dicom
from slicestream.errors import AnnotationError

SOP_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_TYPES = ("BINARY", "FRACTIONAL", "LABELMAP")
_MOST_MARKED = 1 << 30  # voxels of one segment's box
# Nodule, Lesion, Mass, Neoplasm, primary and secondary, Solitary nodule of lung; SNOMED CT and its older SRT codes
_SNOMED_CT = ("27925004", "52988006", "4147007", "108369006", "86049000", "14799000", "427359005")
_SNOMED_RT = ("M-03010", "M-01100", "M-03000", "M-80000", "M-80003", "M-80006")
_WORDS = re.compile(r"nodul|lesion|tumou?r|neoplas|\bmass\b|carcinom|cancer|metasta", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Segment:
    number: int
    label: str
    meaning: str
    is_finding: bool


def referenced(path: Path) -> str | None:
    """Return the SeriesInstanceUID that the file was drawn on, "" where it names none, None where it is no SEG."""
    return series_named(path, SOP_CLASSES, "ReferencedSeriesSequence", _referenced_series)


def read(path: Path, place: SeriesPlace, *, structure: str | None = None) -> Drawing:
    """Return the segments as nodules, one each; `structure` chooses by label or type (see `choosing.matching`).

    Without it all are taken where there is one, or where each is coded as a nodule, lesion or tumour. Raises
    AnnotationError.
    """
    with telling(path, "a DICOM SEG"):
        dataset = read_dicom(path)
        if dataset.SOPClassUID not in SOP_CLASSES or dataset.get("SegmentationType") not in _TYPES:
            raise AnnotationError(
                f"{path}: not a DICOM SEG of type {', '.join(_TYPES)} (found '{dataset.get('SegmentationType')}'); "
                "need one. Convert it."
            )
        same_series = place.uid in _referenced_series(dataset)
        shares_frame(str(dataset.get("FrameOfReferenceUID") or ""), place, path, same_series=same_series)
        segments, notes = _chosen(_segments(dataset), structure, path)
        frames = frames_of(dataset, place, path, same_series=same_series)
        if not same_series and _referenced_series(dataset):
            notes.append("drawn on another series of the same frame of reference")
        if dataset.SegmentationType == "FRACTIONAL":
            notes.append("fractional: at least half of MaximumFractionalValue counts as nodule")
        return _drawing(dataset, frames, segments, place=place, path=path, notes=notes)


def _drawing(
    dataset: Dataset, frames: Frames, segments: Sequence[_Segment], *, place: SeriesPlace, path: Path, notes: list[str]
) -> Drawing:
    marked: dict[int, list[tuple[int, _Patch]]] = {segment.number: [] for segment in segments}
    for frame, number, mask in _masks(dataset, frames, list(marked), path):
        patch = _patch(mask)
        if patch is not None:
            marked[number].append((frame, patch))
    shapes: list[Shape] = []
    said = [*notes, *frames.notes]
    for segment in segments:
        patches = marked[segment.number]
        if not patches:
            said.append(f"segment {segment.number} {listed([segment.label])} is empty, left out")
            continue
        _check_once(frames, [frame for frame, _ in patches], segment, path)
        planes, corner = _planes(patches, path)
        numbers = [frame for frame, _ in patches]
        stack = frames.stack(planes, numbers)
        steps = stack.direction_lps[1:] * np.array(stack.spacing_mm[1:])[:, None]
        stack.first_lps_mm[...] += corner @ steps
        shape, more = placed(stack, segment.label, place, path)
        shapes.append(shape)
        said += more
        said += [note for note in grid_note(stack, place) if note not in said]
    if not shapes:
        said.append("nothing is marked")
    return paint(shapes, place, said)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Patch:
    """The smallest rectangle of a frame that holds all that is marked."""

    mask: NDArray[np.bool_]
    corner: tuple[int, int]


def _patch(mask: NDArray[np.bool_]) -> _Patch | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    low, left = int(rows[0]), int(columns[0])
    return _Patch(mask=mask[low : rows[-1] + 1, left : columns[-1] + 1].copy(), corner=(low, left))


def _planes(patches: Sequence[tuple[int, _Patch]], path: Path) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Return patches as planes of one size, and the row and column of their first voxel."""
    corners = np.array([patch.corner for _, patch in patches])
    ends = corners + np.array([patch.mask.shape for _, patch in patches])
    corner = corners.min(axis=0)
    rows, columns = (int(n) for n in ends.max(axis=0) - corner)
    if len(patches) * rows * columns > _MOST_MARKED:
        raise AnnotationError(
            f"{path}: a segment of {len(patches)} x {rows} x {columns} voxels; need {_MOST_MARKED} at most. "
            "Choose another with --structure."
        )
    planes = np.zeros((len(patches), rows, columns), np.bool_)
    for plane, (_, patch), (row, column) in zip(planes, patches, corners - corner, strict=True):
        plane[row : row + patch.mask.shape[0], column : column + patch.mask.shape[1]] = patch.mask
    return planes, corner


def _masks(
    dataset: Dataset, frames: Frames, wanted: Sequence[int], path: Path
) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
    """Yield frame, segment and what is marked of it, (row, column), one frame in memory at a time."""
    is_map = dataset.SegmentationType == "LABELMAP"
    least = 0.5 * int(dataset.MaximumFractionalValue) if dataset.SegmentationType == "FRACTIONAL" else 1.0
    numbers = [n for n, segment in enumerate(frames.segments) if is_map or segment in wanted]
    for frame, pixels in zip(numbers, _stored(dataset, numbers, path), strict=True):
        if is_map:
            there = set(np.unique(pixels).tolist())
            yield from ((frame, segment, pixels == segment) for segment in wanted if segment in there)
        else:
            yield frame, frames.segments[frame], np.asarray(pixels >= least)


def _stored(dataset: Dataset, numbers: Sequence[int], path: Path) -> Iterator[NDArray[Any]]:
    """Yield the stored values of frames, ascending; compressed ones are decoded in another process."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        yield from _decoded(dataset, frozenset(numbers), path)
    elif dataset.BitsAllocated == 1 and syntax.is_little_endian:
        yield from _unpacked(dataset, numbers)
    elif numbers:
        yield from iter_pixels(dataset, indices=numbers, raw=True)


def _decoded(dataset: Dataset, numbers: Set[int], path: Path) -> Iterator[NDArray[np.integer]]:
    frame = Frame(
        syntax=str(dataset.file_meta.TransferSyntaxUID),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        bits_allocated=max(8, int(dataset.BitsAllocated)),  # a codec gives single bits as bytes
        bits_stored=int(dataset.BitsStored),
        signed=dataset.PixelRepresentation == 1,
    )
    tables = [dataset.get(name) for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
    offsets = (tables[0], tables[1]) if all(tables) else None
    parts = generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames), extended_offsets=offsets)
    for number, part in enumerate(parts):
        if number in numbers:
            yield shared_decoders().decode(frame, encapsulate([part]), path)


def _unpacked(dataset: Dataset, numbers: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """Yield frames of one bit per pixel. They may end within a byte, where the iterator of pydicom 3.0 fails."""
    data = np.frombuffer(dataset.PixelData, np.uint8)
    shape = (int(dataset.Rows), int(dataset.Columns))
    size = shape[0] * shape[1]
    for number in numbers:
        start = number * size
        bits = np.unpackbits(data[start // 8 : (start + size + 7) // 8], bitorder="little")
        yield bits[start % 8 : start % 8 + size].reshape(shape)


def _check_once(frames: Frames, numbers: Sequence[int], segment: _Segment, path: Path) -> None:
    along = np.sort(frames.first_lps_mm[list(numbers)] @ frames.direction_lps[0])
    if len(along) > 1 and np.diff(along).min() < 0.01:
        raise AnnotationError(
            f"{path}: two frames of segment {segment.number} {listed([segment.label])} at one place; need one. "
            "Write the file again."
        )


def _referenced_series(dataset: Dataset) -> list[str]:
    return [str(item.get("SeriesInstanceUID", "")) for item in dataset.get("ReferencedSeriesSequence") or ()]


def _segments(dataset: Dataset) -> list[_Segment]:
    found = []
    for item in dataset.get("SegmentSequence") or ():
        kind = (item.get("SegmentedPropertyTypeCodeSequence") or [Dataset()])[0]
        code, meaning = str(kind.get("CodeValue", "")), str(kind.get("CodeMeaning", ""))
        number = int(item.SegmentNumber)
        if number == 0 and dataset.SegmentationType == "LABELMAP":
            continue  # a label map's background may be described (PS3.3 C.8.20.2)
        label = str(item.get("SegmentLabel") or "").strip() or f"segment {number}"
        finding = code in (*_SNOMED_CT, *_SNOMED_RT) or bool(_WORDS.search(meaning))
        found.append(_Segment(number=number, label=label, meaning=meaning, is_finding=finding))
    return found


def _chosen(segments: list[_Segment], structure: str | None, path: Path) -> tuple[list[_Segment], list[str]]:
    if not segments:
        raise AnnotationError(f"{path}: no segment is described; need one at least. Write the file again.")
    names = [s.label if s.label == s.meaning or not s.meaning else f"{s.label} ({s.meaning})" for s in segments]
    if structure is not None:
        chosen = [segments[n] for n in matching([(s.label, s.meaning) for s in segments], structure)]
        if not chosen:
            raise AnnotationError(
                f"{path}: no segment matches '{structure}'; there are {listed(names)}. Choose with --structure."
            )
        return chosen, [f"segments chosen by '{structure}': {listed([s.label for s in chosen])}"]
    if len(segments) == 1:
        return segments, [f"its only segment taken: {listed(names)}"]
    if all(segment.is_finding for segment in segments):
        return segments, [f"all {len(segments)} segments taken, each is coded as a nodule, lesion or tumour"]
    raise AnnotationError(
        f"{path}: {len(segments)} segments, not all coded as nodules: {listed(names)}; need to know which are. "
        "Choose with --structure."
    )
