"""A batch of files to its series, each a volume or the reason why it is none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from slicestream.dicom.classify import check_ct
from slicestream.dicom.enhanced import MULTI_FRAME, FramePixels, frames_of
from slicestream.dicom.files import needed, optional, read_dicom, text_of
from slicestream.dicom.identity import strip_pixels
from slicestream.dicom.manifest import Finding
from slicestream.dicom.pixels import check_plain_grey, empty_volume, hounsfield
from slicestream.dicom.stack import Image, Stack, by_file, stacks_of
from slicestream.dicom.study import Batch, SourceSlice
from slicestream.errors import AnnotationError, StudyError
from slicestream.volumes.geometry import Geometry

# Group 7FE0 but for what says where the frames lie, which is kept in the header.
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A series in volume order, or one of the stacks that a series consists of.

    Attributes
    ----------
    uid : SeriesInstanceUID
    stack : "" where the series is one volume, else what tells this stack from the others
    slices : the file of each slice; that of a multi-frame image again for each
    headers : pixel-less, one per slice; of multi-frame images with ReferencedFrameNumber
    hu : int16 (slice, row, column); None where only the headers were asked for
    """

    uid: str
    slices: tuple[SourceSlice, ...]
    headers: tuple[Dataset, ...]
    geometry: Geometry
    hu: NDArray[np.int16] | None
    stack: str = ""

    @property
    def name(self) -> str:
        """What its pseudonym is made of: one per volume."""
        return f"{self.uid} {self.stack}" if self.stack else self.uid


def read_series(batch: Batch, *, pixels: bool = True) -> Iterator[Series | Finding]:
    """Yield every volume of a batch, and a finding for whatever could not become one.

    Raises AnnotationError where a table joins files of several patients.
    """
    faults: dict[str, StudyError] = {}
    grouped: dict[str, list[Image]] = defaultdict(list)
    files: dict[str, list[SourceSlice]] = defaultdict(list)
    try:
        for source, header in _headers(batch):
            uid = str(needed(header, "SeriesInstanceUID", source.path))
            files[uid].append(source)
            try:
                check_ct(header, source.path)
                grouped[uid] += _images(source, header)
            except StudyError as error:
                faults.setdefault(uid, error)
    except StudyError as error:  # of which series the file is cannot be told
        yield unusable("", batch.slices, error)
        return
    for uid, sources in sorted(files.items()):
        if uid in faults:
            yield unusable(uid, sources, faults[uid])
        else:
            yield from _volumes(uid, sources, grouped.pop(uid), pixels=pixels)


def _headers(batch: Batch) -> Iterator[tuple[SourceSlice, Dataset]]:
    first: tuple[str, SourceSlice] | None = None
    for source in batch.slices:
        header = read_dicom(source.path, stop_before_pixels=True)
        patient = text_of(header, "PatientID", source.path)
        first = first or (patient, source)
        if patient != first[0]:
            raise AnnotationError(
                f"{source.path}: another PatientID than {first[1].path.name}, but both are "
                f"{batch.name}; need one patient. Correct the table or the headers."
            )
        yield source, header


def _images(source: SourceSlice, header: Dataset) -> list[Image]:
    if header.SOPClassUID in MULTI_FRAME:
        frames = frames_of(header, source.path)
        return [Image(source=source, header=frame, frame=k) for k, frame in enumerate(frames)]
    return [Image(source=source, header=header)]


def _volumes(
    uid: str, sources: Sequence[SourceSlice], images: list[Image], *, pixels: bool
) -> Iterator[Series | Finding]:
    reader = _Reader()
    try:
        stacks, copies = stacks_of(images, reader.hu)
    except StudyError as error:
        yield unusable(uid, sources, error)
        return
    if copies:
        paths = sorted(image.source.path for image in copies)
        text = f"{paths[0]}: identical to another image of its series; {len(paths)} such copies are left out."
        yield Finding(path=paths[0], reason="duplicate", found="CT", text=text, files=len(paths), series=uid)
    images.clear()
    while stacks:
        stack = stacks.pop(0)
        try:
            series = _series(uid, stack, reader if pixels else None)
        except StudyError as error:
            yield unusable(uid, [image.source for image in stack.images], error)
            continue
        yield series


def _series(uid: str, stack: Stack, reader: _Reader | None) -> Series:
    for image in stack.images:  # before room is made for what headers say
        check_plain_grey(image.header, image.source.path)
    hu = empty_volume(stack.geometry.shape, stack.images[0].source.path) if reader else None
    for index, image in by_file(stack.images):
        if hu is not None and reader is not None:
            hu[index] = reader.hu(image)
        strip_pixels(image.header)
    return Series(
        uid=uid,
        stack=stack.name,
        slices=tuple(image.source for image in stack.images),
        headers=tuple(image.header for image in stack.images),
        geometry=stack.geometry,
        hu=hu,
    )


class _Reader:
    """Reads pixels image by image, so that those of one are in memory at a time."""

    def __init__(self) -> None:
        self._frames = FramePixels()

    def hu(self, image: Image) -> NDArray[np.int16]:
        """Return the HU of a slice, int16 (row, column). Raises StudyError, SeriesError."""
        path, header = image.source.path, image.header
        try:
            if image.frame is None:
                pixels = read_dicom(path, specific_tags=list(_PIXELS))
                found = {name: pixels[name] for name in _PIXELS if optional(pixels, name, path) is not None}
            else:
                found = {"PixelData": self._frames.element(path, header, image.frame)}
            if "PixelData" not in found:
                raise StudyError(
                    f"{path}: DICOM without pixels, or truncated before them; need an image. Fetch it again.",
                    reason="no-pixels",
                )
            for name, element in found.items():
                header[name] = element
            check_plain_grey(header, path)
            return hounsfield(header, path)
        except StudyError as error:
            error.reason = error.reason or "pixels"
            raise
        finally:
            for name in _PIXELS:
                if name in header:
                    del header[name]


def unusable(uid: str, sources: Sequence[SourceSlice], error: StudyError) -> Finding:
    """Return what is told of a series that cannot be used; `uid` is "" where it cannot be told which one it is."""
    files = {source.path for source in sources}
    reason = error.reason or ("header" if uid else "damaged")
    return Finding(path=min(files).parent, reason=reason, found="CT", text=str(error), files=len(files), series=uid)
