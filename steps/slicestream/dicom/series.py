"""A batch of files to its series, each a volume or the reason why it is none."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from slicestream.dicom.classify import check_ct
from slicestream.dicom.decoder import shared_decoders
from slicestream.dicom.enhanced import MULTI_FRAME, FramePixels, frames_of
from slicestream.dicom.files import needed, text_of
from slicestream.dicom.header import FileHeader, read_header, read_pixels
from slicestream.dicom.manifest import Finding
from slicestream.dicom.pixels import check_plain_grey, compressed, empty_volume, hounsfield
from slicestream.dicom.stack import Image, Stack, stacks_of
from slicestream.dicom.study import Batch, SourceSlice
from slicestream.errors import AnnotationError, StudyError
from slicestream.volumes.geometry import Geometry

_WORTH_A_DECODER = 64  # slices: one more takes as long to start as so many take


class Voxels:
    """HU, int16 (slice, row, column), decoded while one goes along the slices, `at_once` of them ahead side by side.

    Attributes
    ----------
    shape, dtype : as those of an array
    kept : after that, the slices that were to be kept; the others were never filled, and take no memory
    """

    dtype = np.dtype(np.int16)

    def __init__(
        self, images: Sequence[Image], shape: tuple[int, int, int], reader: _Reader, *, at_once: int = 1
    ) -> None:
        self.shape, self._images, self._reader = shape, images, reader
        self._at_once = _worth(at_once, len(images))
        self._wanted: frozenset[int] = frozenset()
        self.kept: NDArray[np.int16] = np.empty((0, *shape[1:]), np.int16)

    def __iter__(self) -> Iterator[NDArray[np.int16]]:
        """Yield (row, column); it stays as it is until the second one after it is asked for.

        Raises StudyError, SeriesError.
        """
        for index, hu in enumerate(self._ahead()):
            if index in self._wanted:
                self.kept[index] = hu
            yield hu

    def _ahead(self) -> Iterator[NDArray[np.int16]]:
        places = cycle([np.empty(self.shape[1:], np.int16) for _ in range(self._at_once + 2)])
        running: deque[Future[NDArray[np.int16]]] = deque()
        pool = ThreadPoolExecutor(self._at_once)
        try:
            for image, place in zip(self._images, places, strict=False):
                running.append(pool.submit(self._reader.hu, image, place))
                if len(running) > self._at_once:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def keep(self, slices: Iterable[int]) -> None:
        """Keep these slices when they are passed. Raises SeriesError where there is too little memory for them."""
        self._wanted = frozenset(slices)
        if self._wanted:
            self.kept = empty_volume(self.shape, self._images[0].source.path)

    def whole(self) -> NDArray[np.int16]:
        """Return all slices. Raises StudyError, SeriesError."""
        self.keep(range(self.shape[0]))
        deque(self, maxlen=0)
        return self.kept


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A series in volume order, or one of the stacks that a series consists of.

    Attributes
    ----------
    uid : SeriesInstanceUID
    stack : "" where the series is one volume, else what tells this stack from the others
    slices : the file of each slice; that of a multi-frame image again for each
    headers : pixel-less, one per slice; of multi-frame images with ReferencedFrameNumber
    encoded : the headers as they stand in their files; empty for frames of multi-frame images and where big-endian
    hu : decoded when it is gone through
    """

    uid: str
    slices: tuple[SourceSlice, ...]
    headers: tuple[Dataset, ...]
    encoded: tuple[bytes, ...]
    geometry: Geometry
    hu: Voxels
    stack: str = ""

    @property
    def name(self) -> str:
        """What its pseudonym is made of: one per volume."""
        return f"{self.uid} {self.stack}" if self.stack else self.uid


def read_series(batch: Batch, *, at_once: int = 1) -> Iterator[Series | Finding]:
    """Yield every volume of a batch, and a finding for whatever could not become one.

    So many slices of a volume as `at_once` says are decoded side by side when it is gone through.

    Raises AnnotationError where a table joins files of several patients.
    """
    faults: dict[str, StudyError] = {}
    grouped: dict[str, list[Image]] = defaultdict(list)
    files: dict[str, list[SourceSlice]] = defaultdict(list)
    try:
        for source, file in _headers(batch):
            if not files and (decoders := _worth(at_once, len(batch.slices))) > 1 and compressed(file.dataset):
                shared_decoders().start(decoders)  # beside the reading of the other headers
            uid = str(needed(file.dataset, "SeriesInstanceUID", source.path))
            files[uid].append(source)
            try:
                check_ct(file.dataset, source.path)
                grouped[uid] += _images(source, file)
            except StudyError as error:
                faults.setdefault(uid, error)
    except StudyError as error:  # of which series the file is cannot be told
        yield unusable("", batch.slices, error)
        return
    for uid, sources in sorted(files.items()):
        if uid in faults:
            yield unusable(uid, sources, faults[uid])
        else:
            yield from _volumes(uid, sources, grouped.pop(uid), at_once)


def _worth(at_once: int, slices: int) -> int:
    return min(at_once, -(-slices // _WORTH_A_DECODER))


def _headers(batch: Batch) -> Iterator[tuple[SourceSlice, FileHeader]]:
    first: tuple[str, SourceSlice] | None = None
    for source in batch.slices:
        file = read_header(source.path)
        patient = text_of(file.dataset, "PatientID", source.path)
        first = first or (patient, source)
        if patient != first[0]:
            raise AnnotationError(
                f"{source.path}: another PatientID than {first[1].path.name}, but both are "
                f"{batch.name}; need one patient. Correct the table or the headers."
            )
        yield source, file


def _images(source: SourceSlice, file: FileHeader) -> list[Image]:
    if needed(file.dataset, "SOPClassUID", source.path) in MULTI_FRAME:
        frames = frames_of(file.dataset, source.path)
        return [Image(source=source, file=file, header=frame, frame=k) for k, frame in enumerate(frames)]
    return [Image(source=source, file=file, header=file.dataset)]


def _volumes(uid: str, sources: Sequence[SourceSlice], images: list[Image], at_once: int) -> Iterator[Series | Finding]:
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
            series = _series(uid, stack, reader, at_once)
        except StudyError as error:
            yield unusable(uid, [image.source for image in stack.images], error)
            continue
        yield series


def _series(uid: str, stack: Stack, reader: _Reader, at_once: int) -> Series:
    for image in stack.images:
        check_plain_grey(image.header, image.source.path)
    return Series(
        uid=uid,
        stack=stack.name,
        slices=tuple(image.source for image in stack.images),
        headers=tuple(image.header for image in stack.images),
        encoded=tuple(image.file.encoded if image.frame is None else b"" for image in stack.images),
        geometry=stack.geometry,
        hu=Voxels(stack.images, stack.geometry.shape, reader, at_once=at_once),
    )


class _Reader:
    """Reads pixels image by image, so that those of one are in memory at a time, for each thread that asks."""

    def __init__(self) -> None:
        self._frames, self._one_by_one = FramePixels(), Lock()

    def hu(self, image: Image, out: NDArray[np.int16] | None = None) -> NDArray[np.int16]:
        """Return the HU of a slice, int16 (row, column), in `out` if given. Raises StudyError, SeriesError."""
        path, header = image.source.path, image.header
        try:
            if image.frame is None:
                pixels = read_pixels(path, image.file)
            else:
                with self._one_by_one:
                    pixels = self._frames.element(path, header, image.frame)
            if pixels is None:
                raise StudyError(
                    f"{path}: DICOM without pixels, or truncated before them; need an image. Fetch it again.",
                    reason="no-pixels",
                )
            header["PixelData"] = pixels
            check_plain_grey(header, path)
            return hounsfield(header, path, out)
        except StudyError as error:
            error.reason = error.reason or "pixels"
            raise
        finally:
            header.pop("PixelData", None)


def unusable(uid: str, sources: Sequence[SourceSlice], error: StudyError) -> Finding:
    """Return what is told of a series that cannot be used; `uid` is "" where it cannot be told which one it is."""
    files = {source.path for source in sources}
    reason = error.reason or ("header" if uid else "damaged")
    return Finding(path=min(files).parent, reason=reason, found="CT", text=str(error), files=len(files), series=uid)
