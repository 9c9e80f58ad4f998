"""What every DICOM result has in common: who made it, what it takes over from its source, names and codes.

A result lies in the study of its source, in a series of its own; its UIDs follow from source, mask and model.
"""

from __future__ import annotations

import copy
import hashlib
import io
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from highdicom import UID
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage
from pydicom.valuerep import validate_value

from slicestream import __version__
from slicestream.errors import ArtefactError, StudyError
from slicestream.volumes.files import atomic_path
from slicestream.volumes.mask import Mask

CATEGORY = Code("49755003", "SCT", "Morphologically Altered Structure")
NODULE = Code("27925004", "SCT", "Nodule")
LUNG = Code("39607008", "SCT", "Lung")
AI = Code("123110", "DCM", "Artificial Intelligence")
NAME = MANUFACTURER = "SliceStream"
MODEL_NAME = "slicestream"

# What a result takes over from its source: patient, study, and where the images lie. The value stands in where a sparse
# header lacks one that DICOM wants present (type 2: present, may be empty).
_TYPE_2 = {
    "PatientID": "", "PatientName": "", "PatientBirthDate": "", "PatientSex": "", "AccessionNumber": "",
    "StudyID": "", "StudyDate": "", "StudyTime": "", "ReferringPhysicianName": "",
}  # fmt: skip
_COPIED = (
    "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID",
    "FrameOfReferenceUID", "PositionReferenceIndicator", "Modality", "StudyDescription", "PatientAge",
    "Rows", "Columns", "PixelSpacing", "SliceThickness", "ImageOrientationPatient", "ReferencedFrameNumber",
    "ImagePositionPatient", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
)  # fmt: skip
_DROPPED_IF_ODD = ("StudyDescription", "PatientAge", "DeidentificationMethod", "PositionReferenceIndicator")
_SEXES = ("M", "F", "O", "")


def sources_of(mask: Mask, headers: Sequence[Dataset]) -> list[Dataset]:
    """Return of each pixel-less header what a result takes over, complete, in data sets of its own.

    Raises ArtefactError where the headers are not those of the mask's slices.
    """
    with pydicom.config.disable_value_validation():  # of the source's values: odd ones are dealt with, not warned of
        sources = [_source(header, mask.geometry.spacing_mm[0]) for header in headers]
    _check_fit(mask, sources)
    return sources


def equipment(model_hash: str) -> dict[str, Any]:
    """Return what each result says of its maker, as highdicom's constructors take it."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL_NAME,
        "software_versions": __version__,
        "device_serial_number": serial_number(model_hash),
    }


def serial_number(model_hash: str) -> str:
    """Return what stands for the device's serial number: another model is another device."""
    return model_hash[:16] or "none"


def seed_of(mask: Mask, source: Dataset) -> str:
    """Return what the UIDs of all results of one mask are made from."""
    return f"{source.SeriesInstanceUID}\0{mask.content_hash}\0{mask.model_hash}"


def tracking(seed: str, label: int) -> tuple[str, UID]:
    """Return the tracking identifier and UID of a candidate, the same in every result of its mask."""
    return f"candidate {label}", uid_of(seed, f"candidate {label}")


def version_of(mask: Mask) -> str:
    """Return the version of the algorithm: the program's, and which model it ran."""
    return f"{__version__}, model {mask.model_hash[:12] or 'none'}"


@contextmanager
def built(what: str, name: object) -> Iterator[None]:
    """Turn what pydicom and highdicom say of odd headers into a StudyError; `what` is a DICOM SEG, say."""
    try:
        with warnings.catch_warnings():
            # Patients' names stay as they are in the source: highdicom warns of any without a '^'.
            warnings.filterwarnings("ignore", message="The string .* is unlikely to represent")
            yield
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise StudyError(
            f"{name}: its source headers cannot become a {what} ({' '.join(str(error).split())[:160]}). "
            "Correct the study's headers and preprocess it again, or leave the series out."
        ) from error


def save(path: Path, dataset: Dataset) -> None:
    """Write a result whole or not at all. Raises OutputError."""
    file = io.BytesIO()  # pydicom hides what a full disk says
    dataset.save_as(file, enforce_file_format=True)
    with atomic_path(path) as partial:
        partial.write_bytes(file.getbuffer())


def meaning_hash(*parts: str | bytes) -> str:
    """Return a hash of what a result means, free of the times that its file holds."""
    return hashlib.sha256(b"\0".join(p if isinstance(p, bytes) else str(p).encode() for p in parts)).hexdigest()


def uid_of(seed: str, purpose: str) -> UID:
    """Return a UID that depends on its arguments only, of the form 2.25.<UUID> (PS3.5 B.2)."""
    digest = hashlib.sha256(f"{seed}\0{purpose}".encode()).digest()
    return UID(f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}")


def _check_fit(mask: Mask, sources: Sequence[Dataset]) -> None:
    """Raise ArtefactError where the headers are not those of the mask's slices."""
    slices, rows, columns = mask.geometry.shape
    found = {(len(sources), int(s.get("Rows", 0)), int(s.get("Columns", 0))) for s in sources}
    if found != {(slices, rows, columns)}:
        raise ArtefactError(
            f"{mask.id}: source headers of (slices, rows, columns) {sorted(found)}, mask of {mask.geometry.shape}; "
            "need the identity map that was made with this volume. Give --identities of the same preprocess run."
        )
    index = np.zeros((slices, 3))
    index[:, 0] = np.arange(slices)
    positions = np.array([[float(n) for n in source.ImagePositionPatient] for source in sources])
    off_mm = np.abs(positions - positions[0] - mask.geometry.offset_lps_mm(index)).max()
    cosines = np.array([float(n) for n in sources[0].ImageOrientationPatient]).reshape(2, 3)
    turned = np.abs(cosines[::-1] - np.array(mask.geometry.direction_lps[1:])).max() > 1e-3
    # Rounded positions wander over a long scan; half a slice distance would be another slice.
    if turned or off_mm > 0.5 * mask.geometry.spacing_mm[0]:
        raise ArtefactError(
            f"{mask.id}: source slices lie up to {off_mm:.2f} mm from the mask's{', turned' if turned else ''}; need "
            "headers in the volume's slice order. Give --identities of the same preprocess run."
        )


def _source(header: Dataset, between_mm: float) -> Dataset:
    """Return only what a result takes over, complete: vendors' private tags and odd values stay behind.

    Slices `between_mm` apart count as that thick where the header does not say.
    """
    source = Dataset()
    for keyword in _COPIED:
        if keyword in header:
            source[keyword] = copy.copy(header[keyword])  # setting it must not change the header
    for keyword, empty in _TYPE_2.items():
        setattr(source, keyword, header.get(keyword) or empty)
    # dates and times as ACR-NEMA wrote them
    for keyword, vr, marks in (("StudyDate", "DA", "."), ("PatientBirthDate", "DA", "."), ("StudyTime", "TM", ":")):
        value = str(source[keyword].value or "").replace(marks, "").strip()
        setattr(source, keyword, value if _valid(vr, value) else "")
    for keyword in _DROPPED_IF_ODD:
        if keyword in source and not _valid(source[keyword].VR, source[keyword].value):
            delattr(source, keyword)
    if str(source.PatientSex) not in _SEXES:
        source.PatientSex = ""
    if not source.get("SliceThickness"):
        source.SliceThickness = f"{between_mm:.6g}"
    if not source.get("SOPClassUID"):
        source.SOPClassUID = CTImageStorage
    if not source.get("FrameOfReferenceUID"):
        # A CT without one breaks the standard; images of one series share a frame, so its name is made from theirs.
        source.FrameOfReferenceUID = uid_of(str(source.get("SeriesInstanceUID", "")), "frame")
    return source


def _valid(vr: str, value: object) -> bool:
    try:
        validate_value(vr, value, pydicom.config.RAISE)
    except ValueError:
        return False
    return True
