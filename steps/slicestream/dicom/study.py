"""Finding the CT images of a cohort: whose they are and which ones belong together, before any pixel is read."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from slicestream.dicom.annotations.unitochest import TABLE, Row, read_table
from slicestream.dicom.classify import CtFile, classify
from slicestream.dicom.files import optional, text_of, whole
from slicestream.dicom.header import read_header
from slicestream.dicom.manifest import Finding, refusal
from slicestream.errors import StudyError

# What decoding takes beside all else that is done with a slice, as measured; that of other syntaxes takes less.
_DECODING: dict[str, float] = {JPEG2000Lossless: 3.0, JPEG2000: 3.0}
_DECODING |= dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless, JPEGLossless, JPEGLosslessSV1), 0.7)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceSlice:
    """One CT file and the mask drawn on it, if any."""

    path: Path
    mask: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Files that are read together: whole series, never a part of one. `work` is about what they take, in pixels."""

    name: str
    slices: tuple[SourceSlice, ...]
    bytes: int
    work: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Patient:
    """A patient's batches; `identity` is the PatientID, or what stands in for it."""

    identity: str
    batches: tuple[Batch, ...]

    @property
    def bytes(self) -> int:
        """Size of the DICOM files."""
        return sum(batch.bytes for batch in self.batches)

    @property
    def work(self) -> float:
        """About what all of it takes, in uncompressed pixels."""
        return sum(batch.work for batch in self.batches)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cohort:
    """What was found; `notes` say what stood in for what is missing, `findings` what was set aside so far."""

    patients: tuple[Patient, ...]
    excluded: int
    notes: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


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
    """Return the whole patients of share `index` (1 to `count`): the most work first, each to the share with least."""
    shares: list[list[Patient]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for patient in sorted(patients, key=lambda p: (-p.work, p.identity)):
        emptiest = loads.index(min(loads))
        shares[emptiest].append(patient)
        loads[emptiest] += patient.work
    return sorted(shares[index - 1], key=lambda p: p.identity)


def _listed_cohort(rows: list[Row], excluded: frozenset[str]) -> Cohort:
    exams: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        exams[row.patient, row.exam].append(row)
    ids: dict[str, set[str]] = defaultdict(set)
    for (patient, _), listed in exams.items():
        found = _patient_id(listed[0].image)
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


def _patient_id(path: Path) -> str:
    try:
        return text_of(read_header(path).dataset, "PatientID", path)
    except StudyError:  # told when its exam is read
        return ""


def _plain_cohort(folder: Path, excluded: frozenset[str]) -> Cohort:
    series, findings = _sorted_files(folder)
    faults = {uid: fault for uid, files in series.items() if (fault := _fault(files)) is not None}
    kept = {uid: files for uid, files in series.items() if uid not in faults}
    patients = {file.patient for files in series.values() for file in files}
    out = patients & excluded
    findings += [_aside(series[uid], fault) for uid, fault in faults.items() if series[uid][0].patient not in out]
    if not kept:
        raise StudyError(refusal(findings, folder))
    batches: dict[str, list[Batch]] = defaultdict(list)
    for uid, files in sorted(kept.items(), key=lambda item: (item[1][0].patient, item[0])):
        if files[0].patient not in out:
            batches[files[0].patient].append(_batch(f"series {uid}", (SourceSlice(path=f.path) for f in files)))
    return _cohort(batches, excluded=len(out), notes=_notes(kept, excluded - out), findings=findings)


def _sorted_files(folder: Path) -> tuple[dict[str, list[CtFile]], list[Finding]]:
    """Return the CT files by SeriesInstanceUID, and everything else: one finding per series or file."""
    series: dict[str, list[CtFile]] = defaultdict(list)
    aside: dict[tuple[str, str], Finding] = {}
    for path in _files(folder):
        found = classify(path)
        if isinstance(found, CtFile):
            series[found.series].append(found)
            continue
        key = (found.series or str(path), found.reason)
        same = aside.get(key)
        aside[key] = replace(same, files=same.files + 1, references=_both(same, found)) if same else found
    return series, list(aside.values())


def _both(one: Finding, other: Finding) -> tuple[str, ...]:
    return tuple(sorted({*one.references, *other.references}))


def _fault(files: Sequence[CtFile]) -> StudyError | None:
    """Return why a series cannot be used, as far as its files' first look tells."""
    for file in files:
        if file.fault is not None:
            return file.fault
        if file.patient != files[0].patient:
            text = f"{file.path}: another PatientID than in the rest of its series; need one. Correct the headers."
            return StudyError(text, reason="two-patients")
    return None


def _aside(files: Sequence[CtFile], fault: StudyError) -> Finding:
    return Finding(
        path=files[0].path.parent,
        reason=fault.reason or "header",
        found="CT",
        text=str(fault),
        files=len(files),
        series=files[0].series,
    )


def _notes(series: Mapping[str, Sequence[CtFile]], unmatched: frozenset[str]) -> list[str]:
    notes = []
    nameless = len({files[0].patient for files in series.values() if files[0].nameless})
    if nameless:
        notes.append(f"studies without a PatientID: {nameless}; each stands for a patient of its own")
    return notes + _unmatched(unmatched, set())


def _files(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(where, name) for name in sorted(names))


def _batch(name: str, slices: Iterable[SourceSlice]) -> Batch:
    listed = tuple(slices)
    size = sum(source.path.stat().st_size for source in listed)
    return Batch(name=name, slices=listed, bytes=size, work=len(listed) * _work(listed[0].path))


def _work(path: Path) -> float:
    """Return about what a file takes, in uncompressed pixels; none where it is unreadable, told when it is read."""
    try:
        header = read_header(path).dataset
        frames = whole(header, "NumberOfFrames", path) if "NumberOfFrames" in header else 1
        pixels = whole(header, "Rows", path) * whole(header, "Columns", path) * frames
        return pixels * (1.0 + _DECODING.get(str(optional(header.file_meta, "TransferSyntaxUID", path)), 0.0))
    except StudyError:
        return 0.0


def _cohort(
    batches: Mapping[str, list[Batch]], *, excluded: int, notes: list[str], findings: Iterable[Finding] = ()
) -> Cohort:
    patients = [Patient(identity=identity, batches=tuple(found)) for identity, found in sorted(batches.items())]
    if not patients:
        raise StudyError(f"every patient ({excluded}) is excluded; need at least one. Shorten the exclusion list.")
    return Cohort(patients=tuple(patients), excluded=excluded, notes=tuple(notes), findings=tuple(findings))


def _unmatched(excluded: frozenset[str], known: set[str]) -> list[str]:
    count = len(excluded - known)
    return [f"lines of the exclusion list that match no patient here: {count}"] if count else []
