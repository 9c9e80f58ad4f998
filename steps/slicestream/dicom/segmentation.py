"""A mask as a DICOM Segmentation that references its source series: BINARY, one segment per candidate.

Coding: category 49755003 |Morphologically Altered Structure|, type 27925004 |Nodule| of DICOM's CID 7159, anatomic
region 39607008 |Lung|. The type is the morphology, the place stands in the region: a pre-coordinated concept such as
427359005 |Solitary nodule of lung| is a clinical finding, would say "lung" twice and "solitary" of every one of many.
"""

from __future__ import annotations

import hashlib
import io
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from highdicom import UID, AlgorithmIdentificationSequence, PixelMeasuresSequence
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage
from pydicom.valuerep import validate_value

from slicestream import RESEARCH_ONLY, __version__
from slicestream.dicom.enhanced import name_frames, standing_in
from slicestream.errors import ArtefactError, StudyError
from slicestream.volumes.files import atomic_path
from slicestream.volumes.mask import Candidate, Mask

CATEGORY = Code("49755003", "SCT", "Morphologically Altered Structure")
NODULE = Code("27925004", "SCT", "Nodule")
LUNG = Code("39607008", "SCT", "Lung")
AI = Code("123110", "DCM", "Artificial Intelligence")
MANUFACTURER = "SliceStream"
SERIES_NUMBER = 9001  # far from what a scanner counts to

# What a SEG takes over from its source: patient, study, and where the images lie. The value stands in where a sparse
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


def write_segmentation(path: Path, mask: Mask, headers: Sequence[Dataset]) -> str:
    """Write `mask` as a DICOM SEG; return a hash of its meaning (series, positions, voxels), free of times.

    Parameters
    ----------
    mask : with at least one candidate (a SEG must have a segment, a segment must have a voxel)
    headers : pixel-less source headers, one per slice, in the order of the mask's slices

    Raises
    ------
    ArtefactError
        The headers do not fit the mask, or its candidates do not fit its labels.
    StudyError
        A header holds what no DICOM file may.
    OutputError
    """
    try:
        segmentation = build_segmentation(mask, headers)
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise StudyError(
            f"{mask.id}: its source headers cannot become a DICOM SEG ({' '.join(str(error).split())[:160]}). "
            "Correct the study's headers and preprocess it again, or leave the series out."
        ) from error
    file = io.BytesIO()  # pydicom hides what a full disk says
    segmentation.save_as(file, enforce_file_format=True)
    with atomic_path(path) as partial:
        partial.write_bytes(file.getbuffer())
    uids = [segmentation.SeriesInstanceUID, segmentation.SOPInstanceUID, mask.content_hash, segmentation.PixelData]
    return hashlib.sha256(b"\0".join(u if isinstance(u, bytes) else str(u).encode() for u in uids)).hexdigest()


def build_segmentation(mask: Mask, headers: Sequence[Dataset]) -> Segmentation:
    """Return the SEG in memory; see `write_segmentation`."""
    with pydicom.config.disable_value_validation():  # of the source's values: odd ones are dealt with, not warned of
        sources = [_source(header, mask.geometry.spacing_mm[0]) for header in headers]
    _check_fit(mask, sources)
    frames = standing_in(sources)
    segments, ordered = _segment_numbers(mask)
    seed = f"{sources[0].SeriesInstanceUID}\0{mask.content_hash}\0{mask.model_hash}"
    with warnings.catch_warnings():
        # Patients' names stay as they are in the source: highdicom warns of any without a '^'.
        warnings.filterwarnings("ignore", message="The string .* is unlikely to represent")
        segmentation = Segmentation(
            source_images=sources,
            pixel_array=segments,
            segmentation_type="BINARY",
            segment_descriptions=[_description(n, c, mask, seed) for n, c in enumerate(ordered, start=1)],
            series_instance_uid=_uid(seed, "series"),
            series_number=SERIES_NUMBER,
            sop_instance_uid=_uid(seed, "instance"),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name="slicestream",
            software_versions=__version__,
            device_serial_number=mask.model_hash[:16] or "none",
            content_description=RESEARCH_ONLY[:64],
            content_label="NODULES",
            pixel_measures=_measures(mask, sources[0]),
            series_description="SliceStream nodules, for research only",
        )
    name_frames(segmentation, frames)
    # highdicom draws this one at random; the same input must give the same file.
    organization = _uid(seed, "dimensions")
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    return segmentation


def _source(header: Dataset, between_mm: float) -> Dataset:
    """Return only what a SEG takes over, complete: vendors' private tags and odd values stay behind.

    Slices `between_mm` apart count as that thick where the header does not say.
    """
    source = Dataset()
    for keyword in _COPIED:
        if keyword in header:
            source[keyword] = header[keyword]
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
        source.FrameOfReferenceUID = _uid(str(source.get("SeriesInstanceUID", "")), "frame")
    return source


def _valid(vr: str, value: object) -> bool:
    try:
        validate_value(vr, value, pydicom.config.RAISE)
    except ValueError:
        return False
    return True


def _check_fit(mask: Mask, sources: Sequence[Dataset]) -> None:
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


def _segment_numbers(mask: Mask) -> tuple[NDArray[np.uint16], list[Candidate]]:
    """Return labels renumbered 1, 2, … without gaps, and the candidates in that order."""
    ordered = sorted(mask.candidates, key=lambda candidate: candidate.label)
    present = [int(label) for label in np.unique(mask.labels) if label]
    if present != [candidate.label for candidate in ordered]:
        raise ArtefactError(
            f"{mask.id}: labels {present[:5]}… but candidates {[c.label for c in ordered][:5]}…; each label needs its "
            "candidate. Make the mask again with `slicestream infer`."
        )
    if not present:
        raise ArtefactError(f"{mask.id}: no candidate; a SEG needs at least one. Write none for this series.")
    numbers = np.zeros(present[-1] + 1, np.uint16)
    numbers[present] = np.arange(1, len(present) + 1)
    return numbers[mask.labels], ordered


def _description(number: int, candidate: Candidate, mask: Mask, seed: str) -> SegmentDescription:
    version = f"{__version__}, model {mask.model_hash[:12] or 'none'}"
    description = SegmentDescription(
        segment_number=number,
        segment_label=f"Nodule candidate {candidate.label}, score {candidate.score:.3f}",
        segmented_property_category=CATEGORY,
        segmented_property_type=NODULE,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(name="SliceStream", family=AI, version=version),
        tracking_uid=_uid(seed, f"candidate {candidate.label}"),
        tracking_id=f"candidate {candidate.label}",
        anatomic_regions=[LUNG],
    )
    description.SegmentDescription = (
        f"Score {candidate.score:.3f} in [0, 1], {candidate.voxels} voxels, by SliceStream {version}. {RESEARCH_ONLY}"
    )
    return description


def _measures(mask: Mask, source: Dataset) -> PixelMeasuresSequence:
    between_mm, row_mm, column_mm = mask.geometry.spacing_mm
    return PixelMeasuresSequence(
        pixel_spacing=(row_mm, column_mm),
        slice_thickness=float(source.SliceThickness),
        spacing_between_slices=between_mm,
    )


def _uid(seed: str, purpose: str) -> UID:
    """Return a UID that depends on its arguments only, of the form 2.25.<UUID> (PS3.5 B.2)."""
    digest = hashlib.sha256(f"{seed}\0{purpose}".encode()).digest()
    return UID(f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}")
