"""A mask as a DICOM Segmentation that references its source series: BINARY or LABELMAP, one segment per candidate.

Coding as in the standardised LIDC-IDRI (Fedorov et al., Med Phys 2020;47:5953): category 49755003 |Morphologically
Altered Structure|, type 27925004 |Nodule| of DICOM's CID 7159, anatomic region 39607008 |Lung|. The type is the
morphology, the place stands in the region: a pre-coordinated concept such as 427359005 |Solitary nodule of lung| is a
clinical finding, would say "lung" twice and "solitary" of every one of many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from highdicom import AlgorithmIdentificationSequence, PixelMeasuresSequence
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless, SegmentationStorage

from slicestream import RESEARCH_ONLY
from slicestream.dicom import result
from slicestream.dicom.enhanced import name_frames, standing_in
from slicestream.errors import ArtefactError
from slicestream.volumes.mask import Candidate, Mask


class Kind(StrEnum):
    """How the voxels are kept: a plane of bits per segment, or one plane of labels."""

    BINARY = "binary"
    LABELMAP = "labelmap"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form:
    series_number: int  # far from what a scanner counts to
    transfer_syntax: UID
    purpose: str  # of its UIDs


# A plane of single bits has no lossless codec that common readers know (docs/output.md says which were tried).
_FORMS = {
    Kind.BINARY: _Form(series_number=9001, transfer_syntax=ExplicitVRLittleEndian, purpose=""),
    Kind.LABELMAP: _Form(series_number=9002, transfer_syntax=RLELossless, purpose="labelmap "),
}
SOP_CLASSES = {Kind.BINARY: SegmentationStorage, Kind.LABELMAP: UID("1.2.840.10008.5.1.4.1.1.66.7")}


def write_segmentation(path: Path, mask: Mask, headers: Sequence[Dataset], *, kind: Kind = Kind.BINARY) -> str:
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
    segmentation = build_segmentation(mask, headers, kind=kind)
    result.save(path, segmentation)
    uids = [str(segmentation.SeriesInstanceUID), str(segmentation.SOPInstanceUID)]
    return result.meaning_hash(*uids, mask.content_hash, segmentation.PixelData)


def build_segmentation(mask: Mask, headers: Sequence[Dataset], *, kind: Kind = Kind.BINARY) -> Segmentation:
    """Return the SEG in memory; see `write_segmentation`."""
    with result.built("DICOM SEG", mask.id):
        sources = result.sources_of(mask, headers)
        frames = standing_in(sources)
        segments, ordered = _segment_numbers(mask)
        seed, form = result.seed_of(mask, sources[0]), _FORMS[kind]
        series, instance = segmentation_uids(seed, kind)
        segmentation = Segmentation(
            source_images=sources,
            pixel_array=segments,
            segmentation_type=kind.upper(),
            segment_descriptions=[_description(n, c, mask, seed) for n, c in enumerate(ordered, start=1)],
            series_instance_uid=series,
            series_number=form.series_number,
            sop_instance_uid=instance,
            instance_number=1,
            **result.equipment(mask.model_hash),
            content_description=RESEARCH_ONLY[:64],
            content_label="NODULES",
            pixel_measures=_measures(mask, sources[0]),
            transfer_syntax_uid=form.transfer_syntax,
            series_description="SliceStream nodules, for research only",
        )
        name_frames(segmentation, frames)
        # highdicom draws this one at random; the same input must give the same file.
        organization = result.uid_of(seed, f"{form.purpose}dimensions")
        for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
            item.DimensionOrganizationUID = organization
        return segmentation


def segmentation_uids(seed: str, kind: Kind) -> tuple[UID, UID]:
    """Return the UIDs of series and instance."""
    purpose = _FORMS[kind].purpose
    return result.uid_of(seed, f"{purpose}series"), result.uid_of(seed, f"{purpose}instance")


def in_segment_order(mask: Mask) -> list[Candidate]:
    """Return the candidates in the order of their segments, which count from 1."""
    return sorted(mask.candidates, key=lambda candidate: candidate.label)


def _segment_numbers(mask: Mask) -> tuple[NDArray[np.uint16], list[Candidate]]:
    """Return labels renumbered 1, 2, … without gaps, and the candidates in that order."""
    ordered = in_segment_order(mask)
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
    version = result.version_of(mask)
    tracking_id, tracking_uid = result.tracking(seed, candidate.label)
    description = SegmentDescription(
        segment_number=number,
        segment_label=f"Nodule candidate {candidate.label}, score {candidate.score:.3f}",
        segmented_property_category=result.CATEGORY,
        segmented_property_type=result.NODULE,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(name=result.NAME, family=result.AI, version=version),
        tracking_uid=tracking_uid,
        tracking_id=tracking_id,
        anatomic_regions=[result.LUNG],
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
