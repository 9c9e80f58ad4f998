"""DICOM files to send, and what an archive says it has."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import MediaStorageDirectoryStorage

from slicestream.errors import ArchiveError, StudyError

config.settings.reading_validation_mode = config.IGNORE  # headers are passed on, not judged
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

UID = re.compile(r"[0-9]+(\.[0-9]+)*")  # leading zeros of a component break the standard and are met with
_TAGS = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """One SOP instance by its UIDs; `sop_class` is "" where an archive does not say."""

    study: str
    series: str
    uid: str
    sop_class: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A series in an archive; `count` is the number of its instances, None where the archive does not say."""

    study: str
    uid: str
    modality: str
    description: str
    count: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A study in an archive. Its date and description are of a patient: for the user's own terminal only."""

    uid: str
    patient_id: str
    date: str
    description: str
    modalities: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalFile:
    """A DICOM file to send, of `size` bytes."""

    path: Path
    size: int
    instance: Instance
    transfer_syntax: str


def is_uid(text: object) -> bool:
    """Whether it is a DICOM UID (PS3.5 9.1): no name of a file or part of a URL that leads elsewhere."""
    return isinstance(text, str) and len(text) <= 64 and UID.fullmatch(text) is not None


def checked_uid(value: object, *, where: str, what: str) -> str:
    """Return the UID that an archive gave. Raises ArchiveError where it is none."""
    text = str(value or "").strip("\0 ")
    if not is_uid(text):
        raise ArchiveError(f"{where}: gave {text[:80]!r} as {what}; need a DICOM UID. Ask the archive's administrator.")
    return text


def count_of(text: str) -> int | None:
    """Return the number that an archive gave (VR IS, PS3.5 6.2: 12 characters at most), None where it is none."""
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text) else None


def local_files(paths: Sequence[Path]) -> tuple[list[LocalFile], list[Path]]:
    """Return the DICOM files among `paths` and in folders there, and what in the folders is none.

    Raises
    ------
    StudyError
        A named file is not there or not DICOM, there is none at all, or two have one SOP Instance UID.
    """
    found: dict[str, LocalFile] = {}
    passed_over: list[Path] = []
    for given in paths:
        named = given.is_file() or not given.exists()
        for path in [given] if named else sorted(p for p in given.rglob("*") if p.is_file()):
            file = _read(path)
            if file is None:
                if named:
                    raise StudyError(f"{path}: not a DICOM file (no 'DICM' after 128 bytes); need DICOM. Leave it out.")
                passed_over.append(path)
                continue
            twin = found.setdefault(file.instance.uid, file)
            if twin is not file:
                raise StudyError(f"{path}: same SOP Instance UID as {twin.path}; need each once. Leave one out.")
    if not found:
        raise StudyError(f"{', '.join(map(str, paths))}: no DICOM file; need at least one to send. Check the folder.")
    return list(found.values()), passed_over


def header(path: Path) -> Dataset:
    """Return the UIDs in a file's header, with its meta information. Raises StudyError, or InvalidDicomError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
    except (InvalidDicomError, FileNotFoundError):
        raise
    except Exception as error:  # a damaged file makes the parser fail in any way
        reason = " ".join(str(error).split())[:120]
        raise StudyError(f"{path}: truncated or damaged ({reason}); need a whole DICOM file. Make it again.") from error


def _read(path: Path) -> LocalFile | None:
    """Return None for what is no DICOM file, or lists other files only (DICOMDIR)."""
    try:
        dataset = header(path)
    except InvalidDicomError:
        return None
    except FileNotFoundError:
        raise StudyError(f"{path}: no such file. Check the name.") from None
    meta = dataset.file_meta
    if meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return None
    uids = {name: str(dataset.get(name) or "") for name in _TAGS}
    uids["TransferSyntaxUID"] = str(meta.get("TransferSyntaxUID") or "")
    for name, uid in uids.items():
        if not is_uid(uid):
            raise StudyError(f"{path}: {name} '{uid[:80]}'; need a UID, without it no archive can keep the file.")
    for name, twin in (("SOPClassUID", "MediaStorageSOPClassUID"), ("SOPInstanceUID", "MediaStorageSOPInstanceUID")):
        if str(meta.get(twin) or "") != uids[name]:
            raise StudyError(f"{path}: {twin} and {name} differ; need one UID. Make the file again.")
    instance = Instance(
        study=uids["StudyInstanceUID"],
        series=uids["SeriesInstanceUID"],
        uid=uids["SOPInstanceUID"],
        sop_class=uids["SOPClassUID"],
    )
    return LocalFile(path=path, size=path.stat().st_size, instance=instance, transfer_syntax=uids["TransferSyntaxUID"])
