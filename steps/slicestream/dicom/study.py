"""Finding the CT images of a cohort: whose they are and which ones belong together, before any pixel is read."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from slicestream.dicom.annotations.unitochest import TABLE, Row, read_table
from slicestream.dicom.files import needed, optional, read_dicom, text_of
from slicestream.errors import StudyError

_TAGS = ("SOPClassUID", "Modality", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "ImageType")
# What lies beside a CT in a clinical folder and holds no image of its own to segment.
_COMPANIONS = {"SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG", "DOC", "OT", "SC", "FID", "PT", "PLAN"}
_DICOM_SUFFIXES = {"", ".dcm", ".dicom", ".dic", ".ima"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceSlice:
    """One CT file and the mask drawn on it, if any."""

    path: Path
    mask: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Files that are read together: whole series, never a part of one."""

    name: str
    slices: tuple[SourceSlice, ...]
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Patient:
    """A patient's batches; `identity` is the PatientID, or what stands in for it."""

    identity: str
    batches: tuple[Batch, ...]

    @property
    def bytes(self) -> int:
        """Size of the DICOM files."""
        return sum(batch.bytes for batch in self.batches)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cohort:
    """What was found; `notes` say what was set aside, or stood in for what is missing."""

    patients: tuple[Patient, ...]
    excluded: int
    notes: tuple[str, ...]


def find_cohort(folder: Path, excluded: Iterable[str] = ()) -> Cohort:
    """Look through a cohort: UniToChest layout where it has a dataset.csv, else DICOM files in any nesting.

    `excluded` are PatientIDs (of the headers or of dataset.csv) to leave out. Raises StudyError, AnnotationError.
    """
    if not folder.is_dir():
        raise StudyError(f"{folder}: not a folder; need a folder with DICOM files. Check the name.")
    if (folder / TABLE).is_file():
        return _listed_cohort(read_table(folder), frozenset(excluded))
    return _plain_cohort(folder, frozenset(excluded))


def share_of(patients: Iterable[Patient], index: int, count: int) -> list[Patient]:
    """Return the patients of share `index` (1 to `count`): whole patients, the largest first to the emptiest share."""
    shares: list[list[Patient]] = [[] for _ in range(count)]
    loads = [0] * count
    for patient in sorted(patients, key=lambda p: (-p.bytes, p.identity)):
        emptiest = loads.index(min(loads))
        shares[emptiest].append(patient)
        loads[emptiest] += patient.bytes
    return sorted(shares[index - 1], key=lambda p: p.identity)


def check_ct(header: Dataset, path: Path) -> None:
    """Raise StudyError where a file is not a single-frame CT image."""
    modality, kind = str(needed(header, "Modality", path)), needed(header, "SOPClassUID", path)
    if modality != "CT" or kind != CTImageStorage:
        raise StudyError(
            f"{path}: modality {modality} ({getattr(kind, 'name', kind)}); "
            "need CT (CT Image Storage, one file per slice). Remove it from the folder, or convert it."
        )


def _listed_cohort(rows: list[Row], excluded: frozenset[str]) -> Cohort:
    exams: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        exams[row.patient, row.exam].append(row)
    ids: dict[str, set[str]] = defaultdict(set)
    for (patient, _), listed in exams.items():
        header = read_dicom(listed[0].image, stop_before_pixels=True, specific_tags=list(_TAGS))
        found = text_of(header, "PatientID", listed[0].image)
        ids[patient].update([found] if found else [])
    names = _joined(ids)
    nameless = sorted(patient for patient, found in ids.items() if not found)
    notes = [f"patients without a PatientID in DICOM: {len(nameless)}; that of {TABLE} stands in"] if nameless else []
    out = {names[p] for p in ids if p in excluded or ids[p] & excluded}
    notes += _unmatched(excluded, set(ids).union(*ids.values()))
    batches: dict[str, list[Batch]] = defaultdict(list)
    for (patient, exam), listed in sorted(exams.items()):
        if names[patient] not in out:
            slices = (SourceSlice(path=row.image, mask=row.mask) for row in listed)
            batches[names[patient]].append(_batch(f"patient {patient} exam {exam}", slices))
    return _cohort(batches, excluded=len(out), notes=notes)


def _joined(ids: Mapping[str, set[str]]) -> dict[str, str]:
    """Return one name per patient of the table: those that share a PatientID are one and the same."""
    groups: list[tuple[set[str], set[str]]] = []
    for patient, found in sorted(ids.items()):
        mine, theirs = {patient}, set(found)
        for group in [g for g in groups if g[1] & theirs]:
            mine, theirs = mine | group[0], theirs | group[1]
            groups.remove(group)
        groups.append((mine, theirs))
    return {p: min(theirs, default=f"{TABLE} {p}") for mine, theirs in groups for p in mine}


def _plain_cohort(folder: Path, excluded: frozenset[str]) -> Cohort:
    aside: Counter[str] = Counter()
    series: dict[tuple[str, str], list[SourceSlice]] = defaultdict(list)
    names: dict[str, str] = {}
    nameless: set[str] = set()
    for path in _files(folder):
        header = _header_of(path, aside)
        if header is None:
            continue
        uid = str(needed(header, "SeriesInstanceUID", path))
        patient = text_of(header, "PatientID", path)
        if not patient:
            patient = f"study {needed(header, 'StudyInstanceUID', path)}"
            nameless.add(patient)
        if names.setdefault(uid, patient) != patient:
            raise StudyError(
                f"{path}: another PatientID than in the rest of its series; need one. Correct the headers."
            )
        series[patient, uid].append(SourceSlice(path=path))
    if not series:
        raise StudyError(
            f"{folder}: no CT image{', only ' * bool(aside)}{_counted(aside)}; need DICOM files of CT. "
            "Check the folder."
        )
    notes = [f"set aside: {_counted(aside)}"] if aside else []
    if nameless:
        notes.append(f"studies without a PatientID: {len(nameless)}; each stands for a patient of its own")
    out = {patient for patient, _ in series if patient in excluded}
    notes += _unmatched(excluded, out)
    batches: dict[str, list[Batch]] = defaultdict(list)
    for (patient, uid), slices in sorted(series.items()):
        if patient not in out:
            batches[patient].append(_batch(f"series {uid}", slices))
    return _cohort(batches, excluded=len(out), notes=notes)


def _header_of(path: Path, aside: Counter[str]) -> Dataset | None:
    """Return the header of a CT slice, or None where the file is set aside, and counted in `aside`."""
    suffix = path.suffix.lower()
    if path.name.startswith(".") or not (suffix in _DICOM_SUFFIXES or suffix[1:].isdigit()):
        aside["not DICOM by name"] += 1
        return None
    header = read_dicom(path, stop_before_pixels=True, specific_tags=list(_TAGS))
    modality, kind = text_of(header, "Modality", path), optional(header, "SOPClassUID", path)
    if path.name == "DICOMDIR" or modality in _COMPANIONS:
        aside[modality or "DICOMDIR"] += 1
        return None
    check_ct(header, path)
    if "LOCALIZER" in text_of(header, "ImageType", path) and kind == CTImageStorage:
        aside["localizer"] += 1
        return None
    return header


def _files(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(where, name) for name in sorted(names))


def _batch(name: str, slices: Iterable[SourceSlice]) -> Batch:
    listed = tuple(slices)
    return Batch(name=name, slices=listed, bytes=sum(s.path.stat().st_size for s in listed))


def _cohort(batches: Mapping[str, list[Batch]], *, excluded: int, notes: list[str]) -> Cohort:
    patients = [Patient(identity=identity, batches=tuple(found)) for identity, found in sorted(batches.items())]
    if not patients:
        raise StudyError(f"every patient ({excluded}) is excluded; need at least one. Shorten the exclusion list.")
    return Cohort(patients=tuple(patients), excluded=excluded, notes=tuple(notes))


def _unmatched(excluded: frozenset[str], known: set[str]) -> list[str]:
    count = len(excluded - known)
    return [f"lines of the exclusion list that match no patient here: {count}"] if count else []


def _counted(aside: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(aside.items()))
