"""Which annotations there are, and which of them is a series': by the series that they name, else by where they lie."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from slicestream.dicom.annotations import unitochest
from slicestream.dicom.annotations.consensus import Consensus
from slicestream.dicom.annotations.drawing import Drawing, DrawnNodule, SeriesPlace
from slicestream.dicom.annotations.patches import voxel_counts
from slicestream.dicom.files import read_dicom, text_of
from slicestream.dicom.series import Series
from slicestream.dicom.study import Cohort
from slicestream.errors import AnnotationError, OptionError, StudyError

# Ending → module of this folder. The endings of DICOM are many; such files go by their SOP class or modality.
_BY_ENDING = {
    ".xml": "lidc",
    ".nii": "images",
    ".nii.gz": "images",
    ".mha": "images",
    ".mhd": "images",
    ".nrrd": "images",
}
_BY_MODALITY = {"SEG": "seg", "RTSTRUCT": "rtstruct"}
_BY_SOP_CLASS = {  # DICOM PS3.4 B.5, as the files' meta information has them
    b"1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    b"1.2.840.10008.5.1.4.1.1.66.7": "SEG",
    b"1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT",
}
_HEAD_BYTES = 4096
_JOINABLE = ("seg", "rtstruct")
_SHARED = 0.1  # of the smaller nodule's voxels: more, and two files draw the same nodule


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What of the annotations is taken: the structure, by name or pattern, and the readers' consensus."""

    structure: str | None = None
    consensus: Consensus = field(default_factory=Consensus)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    path: Path
    kind: str


class Annotations:
    """The annotations of some folders, handed out series by series."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._of_series: dict[str, list[_Source]] = defaultdict(list)
        self._in_folder: dict[Path, list[_Source]] = defaultdict(list)
        self._crowded: set[Path] = set()
        self._seen: set[str] = set()
        self._placed: set[_Source] = set()
        self._said: Counter[str] = Counter()

    def add(self, folder: Path) -> None:
        """Look through a folder, every depth. Raises AnnotationError, StudyError."""
        for path in _files(folder):
            kind = _kind(path)
            module = _module(kind) if kind else None
            uid = module.referenced(path) if module else None
            if module is None or uid is None:
                continue
            source = _Source(path=path, kind=kind)
            if kind == "luna16":
                for one in module.series_of(path):
                    self._of_series[one].append(source)
            elif uid:
                self._of_series[uid].append(source)
            else:
                self._of_series[_stem(path)].append(source)
                self._in_folder[path.parent].append(source)

    @property
    def paths(self) -> frozenset[Path]:
        """The files that hold annotations."""
        return frozenset(s.path for sources in self._of_series.values() for s in sources)

    def crowd(self, cohort: Cohort) -> None:
        """Note the folders with slices of more than one series: an image there could be of any of them."""
        owners: dict[Path, str] = {}
        for patient in cohort.patients:
            for batch in patient.batches:
                for source in batch.slices:
                    if owners.setdefault(source.path.parent, batch.name) != batch.name:
                        self._crowded.add(source.path.parent)

    def of(self, series: Series) -> Drawing | None:
        """Return what was drawn on a series, None where nobody looked at it. Raises AnnotationError."""
        self._seen.add(series.uid)
        sources = self._sources(series)
        masks = any(source.mask is not None for source in series.slices)
        if masks and sources:
            raise _ambiguous([f"{unitochest.TABLE} ({series.slices[0].path.parent})", *(str(s.path) for s in sources)])
        if masks:
            return _drawn_masks(series)
        if not sources:
            return None
        kinds = {source.kind for source in sources}
        if len(sources) > 1 and (len(kinds) > 1 or kinds.isdisjoint(_JOINABLE)):
            raise _ambiguous([str(source.path) for source in sources])
        place = place_of(series)
        drawings = [drawing for source in sources if (drawing := self._read(source, place)) is not None]
        if not drawings:
            self._said["stacks of a series that its annotation draws nothing on, taken as not annotated"] += 1
            return None
        if len(drawings) > 1:
            _check_apart(sources, drawings)
        drawing = joined(drawings)
        for note in drawing.notes:
            what, _, count = note.rpartition(": ")
            self._said[what if count.isdecimal() else note] += int(count) if count.isdecimal() else 1
        return drawing

    def tell(self, say: Callable[[str], None], cohort: Cohort, *, all_series: bool) -> None:
        """Say what there is to say of the series so far and, if asked for, of annotations of none in the cohort."""
        for what, number in sorted(self._said.items()):
            say(f"{what}: {number}")
        lost = {uid: sources for uid, sources in self._of_series.items() if uid not in self._seen}
        if not (lost and all_series):
            return
        firsts = (batch.slices[0].path for patient in cohort.patients for batch in patient.batches)
        there = {text_of(_header(path), "SeriesInstanceUID", path) for path in firsts}
        left = [s for uid, sources in lost.items() if uid not in there for s in sources if s not in self._placed]
        for kind, count in sorted(Counter(source.kind for source in left).items()):
            say(f"annotations ({kind}) of series that are not in the cohort: {count}")

    def _sources(self, series: Series) -> list[_Source]:
        found = list(self._of_series.get(series.uid, ()))
        for folder in sorted({source.path.parent for source in series.slices} - self._crowded):
            found += [source for source in self._in_folder.get(folder, ()) if source not in found]
        return found

    def _read(self, source: _Source, place: SeriesPlace) -> Drawing | None:
        if source.kind == "images":
            self._placed.add(source)
        more: dict[str, Any] = {"consensus": self._choice.consensus} if source.kind == "lidc" else {}
        drawing = _module(source.kind).read(source.path, place, structure=self._choice.structure, **more)
        assert isinstance(drawing, Drawing | None)
        return drawing


def find_annotations(folders: Iterable[Path], cohort: Cohort, choice: Choice) -> Annotations:
    """Look through folders for annotations of every format. Raises AnnotationError, OptionError, StudyError.

    A folder in the UniToChest layout is passed over: its table names its masks.
    """
    annotations = Annotations(choice)
    annotations.crowd(cohort)
    for folder in folders:
        if not folder.is_dir():
            raise OptionError(f"--annotations {folder}: not a folder; need one with annotations. Check the name.")
        if not (folder / unitochest.TABLE).is_file():
            annotations.add(folder)
    return annotations


def place_of(series: Series) -> SeriesPlace:
    """Return where a series lies, from its headers."""
    first, path = series.headers[0], series.slices[0].path
    x, y, z = (float(mm) for mm in first.ImagePositionPatient)
    return SeriesPlace(
        uid=series.uid,
        frame_of_reference_uid=text_of(first, "FrameOfReferenceUID", path),
        instance_uids=tuple(text_of(header, "SOPInstanceUID", path) for header in series.headers),
        geometry=series.geometry,
        origin_lps_mm=(x, y, z),
        stack=series.stack,
    )


def joined(drawings: Sequence[Drawing]) -> Drawing:
    """Return drawings of one series as one; the smaller nodule has a voxel that two have, labels go on counting."""
    if len(drawings) == 1:
        return drawings[0]
    labels = np.zeros_like(drawings[0].labels)
    sizes = np.zeros(1, np.int64)
    nodules: list[DrawnNodule] = []
    for drawing in drawings:
        offset = len(sizes) - 1
        counts = voxel_counts(drawing.labels)
        highest = max(len(counts) - 1, *(nodule.label for nodule in drawing.nodules), 0)
        if offset + highest > np.iinfo(np.uint16).max:
            raise AnnotationError(f"over {offset} nodules drawn on one series; need at most 65535. Leave files out.")
        sizes = np.concatenate((sizes, counts[1:], np.zeros(highest + 1 - len(counts), np.int64)))
        for mine, theirs in zip(labels, drawing.labels, strict=True):
            taken = (theirs > 0) & ((mine == 0) | (sizes[theirs + offset * (theirs > 0)] < sizes[mine]))
            mine[taken] = theirs[taken] + offset
        nodules += [replace(n, label=n.label + offset if n.label else 0) for n in drawing.nodules]
    notes = (*(note for drawing in drawings for note in drawing.notes), f"files joined on one series: {len(drawings)}")
    return Drawing(labels=labels, nodules=tuple(nodules), notes=notes)


def _drawn_masks(series: Series) -> Drawing:
    """Return the PNG masks of a series, each 26-connected component a nodule."""
    nodule = np.zeros(series.geometry.shape, np.bool_)
    for index, source in enumerate(series.slices):
        if source.mask is not None:
            nodule[index] = unitochest.read_mask(source.mask, series.geometry.shape[1:])
    labels, count = cc3d.connected_components(nodule, connectivity=26, return_N=True)
    if count > np.iinfo(np.uint16).max:
        raise AnnotationError(
            f"{series.slices[0].path.parent}: {count} separate nodules drawn; need at most 65535. Check the masks."
        )
    nodules = tuple(DrawnNodule(label=label) for label in range(1, count + 1))
    return Drawing(labels=np.asarray(labels, np.uint16), nodules=nodules)


def _check_apart(sources: Sequence[_Source], drawings: Sequence[Drawing]) -> None:
    """Raise AnnotationError unless the files draw different structures, by name and by place."""
    for (one, first), (other, second) in combinations(zip(sources, drawings, strict=True), 2):
        names = [{nodule.name.casefold() for nodule in drawing.nodules} for drawing in (first, second)]
        if names[0] & names[1] or _share(first.labels, second.labels) > _SHARED:
            raise _ambiguous([str(one.path), str(other.path)])


def _share(one: NDArray[np.uint16], other: NDArray[np.uint16]) -> float:
    """Return the highest share of the smaller one's voxels that two nodules have in common."""
    both = (one > 0) & (other > 0)
    if not both.any():
        return 0.0
    sizes = voxel_counts(one), voxel_counts(other)
    pairs, counts = np.unique(np.stack((one[both], other[both])), axis=1, return_counts=True)
    return float((counts / np.minimum(sizes[0][pairs[0]], sizes[1][pairs[1]])).max())


def _ambiguous(names: Sequence[str]) -> AnnotationError:
    listed = ", ".join(names[:4]) + ", …" * (len(names) > 4)
    return AnnotationError(
        f"{listed}: {len(names)} annotations of one series; need one, or files of DICOM SEG (or of RTSTRUCT) that draw "
        "different structures. Put those that you want into a folder and give it with --annotations."
    )


def _kind(path: Path) -> str:
    """Return which module may read a file, "" where none does."""
    if path.name.startswith("."):
        return ""
    if path.name == "annotations.csv":
        return "luna16"
    ending = ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix.lower()
    return _BY_ENDING.get(ending) or _BY_MODALITY.get(_modality(path), "")


def _modality(path: Path) -> str:
    """Return the modality of a DICOM file that holds annotations, "" of any other: mostly by its first bytes alone."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return ""
    if head[128:132] != b"DICM":
        return ""
    named = any(uid in head for uid in _BY_SOP_CLASS)
    if not named and b"\x02\x00\x02\x00UI" in head:  # MediaStorageSOPClassUID says that it is something else
        return ""
    try:
        header = read_dicom(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "Modality"])
    except StudyError:
        if named:
            raise
        return ""
    return _BY_SOP_CLASS.get(text_of(header, "SOPClassUID", path).encode(), text_of(header, "Modality", path))


def _header(path: Path) -> Any:
    return read_dicom(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])


def _module(kind: str) -> Any:
    """Return the reader of a format, imported when it is asked for: a plain cohort needs none."""
    return import_module(f"slicestream.dicom.annotations.{kind}")


def _stem(path: Path) -> str:
    name = path.name
    return name[: -len(".nii.gz")] if name.lower().endswith(".nii.gz") else path.stem


def _files(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders.sort()
        yield from (path for name in sorted(names) if (path := Path(where, name)).is_file())  # a pipe would never end
