"""What one file is, by what stands in it: never by its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import config
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, MediaStorageDirectoryStorage

from slicestream.dicom.enhanced import MULTI_FRAME
from slicestream.dicom.files import needed, one_line, optional, text_of
from slicestream.dicom.header import read_header
from slicestream.dicom.manifest import Finding
from slicestream.errors import StudyError

_CT = MULTI_FRAME | {CTImageStorage}
# What lies beside a CT in a clinical folder and holds no image of its own to segment.
_COMPANIONS = {"SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG", "DOC", "OT", "SC", "FID", "PT", "PLAN"}
_DICOM_SUFFIXES = {".dcm", ".dicom", ".dic", ".ima"}
_PREAMBLE = 128
# Where annotations say what they were drawn on: SEG, RTSTRUCT, SR.
_REFERENCES = (
    ("ReferencedSeriesSequence",),
    ("ReferencedFrameOfReferenceSequence", "RTReferencedStudySequence", "RTReferencedSeriesSequence"),
    ("CurrentRequestedProcedureEvidenceSequence", "ReferencedSeriesSequence"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CtFile:
    """An image of CT: whose it is. `fault` says why its series cannot be used, where that is known already.

    `patient` is the PatientID; where there is none (`nameless`), the study stands in.
    """

    path: Path
    patient: str
    series: str
    nameless: bool = False
    fault: StudyError | None = None


def classify(path: Path) -> CtFile | Finding:
    """Look at one file. Whatever it is, no error is raised: what cannot be read is a finding with its reason."""
    try:
        if not has_dicm(path):
            return _no_dicom(path)
        header = read_header(path).dataset
    except StudyError as error:
        return Finding(path=path, reason=error.reason or "damaged", found="damaged file", text=str(error))
    try:
        return _kind_of(header, path)
    except StudyError as error:
        return _faulty(header, path, error)


def has_dicm(path: Path) -> bool:
    """Tell whether 'DICM' stands after the preamble (PS3.10 7.1). Raises StudyError where the file cannot be read."""
    if not path.is_file():  # a pipe or device would never end
        return False
    try:
        with path.open("rb") as file:
            return file.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"
    except OSError as error:
        raise StudyError(
            f"{path}: cannot be read ({error.strerror}); need a readable file. Check its permissions.",
            reason="unreadable",
        ) from error


def check_ct(header: Dataset, path: Path) -> None:
    """Raise StudyError where a file is no CT image."""
    modality, kind = str(needed(header, "Modality", path)), _uid(needed(header, "SOPClassUID", path))
    if modality != "CT" or kind not in _CT:
        raise StudyError(
            f"{path}: modality {one_line(modality)} ({one_line(kind.name)}); "
            "need CT (CT Image Storage, one file per slice). Remove it from the folder, or convert it.",
            reason="mixed-modality",
        )


def _no_dicom(path: Path) -> Finding:
    try:
        if path.suffix.lower() in _DICOM_SUFFIXES and not path.name.startswith("."):
            read_header(path)  # says in our words what is wrong with it
    except StudyError as error:
        # its name says that it was to be DICOM: perhaps a slice of a series
        return Finding(path=path, reason="damaged", found="damaged file", text=str(error))
    return Finding(path=path, reason="not-dicom", found="other file", text=f"{path}: no 'DICM' after 128 bytes.")


def _kind_of(header: Dataset, path: Path) -> CtFile | Finding:
    stated = optional(header, "SOPClassUID", path) or optional(header.file_meta, "MediaStorageSOPClassUID", path)
    kind = _uid(stated or "")
    name = one_line(kind.name)
    if kind == MediaStorageDirectoryStorage:
        return Finding(
            path=path, reason="dicomdir", found="DICOMDIR", text=f"{path}: a list of files; they are looked for."
        )
    modality, image_type = text_of(header, "Modality", path), text_of(header, "ImageType", path)
    if not modality and (kind in _CT or kind.name == str(kind)):
        needed(header, "Modality", path)  # only some objects that are no images have none: palettes, protocols
    series = text_of(header, "SeriesInstanceUID", path)
    aside = Finding(path=path, reason="companion", found=one_line(modality) or name, text="", series=series)
    if modality in _COMPANIONS or not modality:
        return replace(aside, text=f"{path}: {name}, no CT image.", references=_references(header, path))
    if "Secondary Capture" in name or (kind in _CT and "SCREEN SAVE" in image_type):
        return replace(aside, reason="secondary-capture", text=f"{path}: {name}, a picture of a screen or a page.")
    if kind not in _CT and modality != "CT":
        try:
            check_ct(header, path)
        except StudyError as error:
            return replace(aside, reason="other-modality", text=str(error))
    if "LOCALIZER" in image_type and kind in _CT:
        return replace(aside, reason="localizer", text=f"{path}: an overview image that scans are planned on.")
    check_ct(header, path)
    return _ct_file(header, path)


def _uid(value: object) -> UID:
    return UID(str(value), validation_mode=config.IGNORE)


def _ct_file(header: Dataset, path: Path, fault: StudyError | None = None) -> CtFile:
    patient = text_of(header, "PatientID", path)
    return CtFile(
        path=path,
        patient=patient or f"study {needed(header, 'StudyInstanceUID', path)}",
        series=str(needed(header, "SeriesInstanceUID", path)),
        nameless=not patient,
        fault=fault,
    )


def _faulty(header: Dataset, path: Path, error: StudyError) -> CtFile | Finding:
    """Return the file with its fault, so that its series is set aside as a whole; a finding where it names none."""
    try:
        return _ct_file(header, path, fault=error)
    except StudyError:
        return Finding(path=path, reason=error.reason or "header", found="damaged file", text=str(error))


def _references(header: Dataset, path: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(set(_referenced(header))))
    except Exception as error:  # values are parsed when asked for, and may be anything
        raise StudyError(f"{path}: what it refers to cannot be read ({one_line(str(error))}).") from error


def _referenced(header: Dataset) -> Iterator[str]:
    for first, *rest in _REFERENCES:
        items: Sequence[Dataset] = header.get(first) or ()
        for name in rest:
            items = [inner for item in items for inner in item.get(name) or ()]
        yield from (str(item.SeriesInstanceUID) for item in items if item.get("SeriesInstanceUID"))
