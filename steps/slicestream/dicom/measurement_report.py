"""What was measured, as a DICOM SR: TID 1500 Measurement Report, Comprehensive 3D SR, one per study.

Each candidate is a volumetric ROI measurement group (TID 1411) that references its segment. A study in which nothing
was found gets a report too: an archive is to show that the algorithm has run, and on which images.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from highdicom import sr
from highdicom.sr.value_types import (
    CodeContentItem,
    ContainerContentItem,
    ContentSequence,
    ImageContentItem,
    TextContentItem,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from slicestream import RESEARCH_ONLY
from slicestream.dicom import result
from slicestream.dicom.segmentation import SOP_CLASSES, Kind, in_segment_order, segmentation_uids
from slicestream.errors import ArtefactError
from slicestream.volumes.mask import Mask
from slicestream.volumes.measures import Measures, rounded

SERIES_NUMBER = 9003
SCHEME = "99SLICESTREAM"
# No public code says what our score is: it is no calibrated certainty in percent, as 111012 DCM would have it.
SCORES = {  # by what a mask's settings say of it
    "mean probability": Code("mean-probability", SCHEME, "Mean probability over voxels"),
    "second network": Code("second-network", SCHEME, "Score by a second network"),
}
EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")  # row 12 of TID 1500
PRESENT, ABSENT = codes.SCT.Present, Code("272519000", "SCT", "Absent")
_POSITION = (codes.DCM.ImagePositionPatientX, codes.DCM.ImagePositionPatientY, codes.DCM.ImagePositionPatientZ)
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesResult:
    """One series as a report needs it: no voxels. `sources`: what a result takes over of each slice's header."""

    mask: str
    study: str
    model_hash: str
    version: str
    seed: str
    sources: Sequence[Dataset]
    candidates: Sequence[tuple[int, float, Measures]]  # label, score, measures; in the order of the segments
    score: Code
    segmentation: Dataset | None


def series_result(mask: Mask, headers: Sequence[Dataset], found: Mapping[int, Measures], kind: Kind) -> SeriesResult:
    """Keep of a series what its study's report needs; `found` by label, `kind` of the SEG that is referenced.

    Raises
    ------
    ArtefactError
        The headers do not fit the mask, or a candidate was not measured.
    StudyError
        A header lacks what a report needs.
    """
    with result.built("DICOM SR", mask.id):
        sources = result.sources_of(mask, headers)
        seed = result.seed_of(mask, sources[0])
        ordered = in_segment_order(mask)
        if [candidate.label for candidate in ordered] != sorted(found):
            raise ArtefactError(f"{mask.id}: measured {sorted(found)[:5]}…, which are not its candidates. Infer again.")
        return SeriesResult(
            mask=str(mask.id),
            study=str(sources[0].StudyInstanceUID),
            model_hash=mask.model_hash,
            version=result.version_of(mask),
            seed=seed,
            sources=sources,
            candidates=[(c.label, c.score, found[c.label]) for c in ordered],
            score=_score_of(mask),
            segmentation=_segmentation(sources[0], seed, kind) if ordered else None,
        )


def _score_of(mask: Mask) -> Code:
    kind = str(mask.settings.get("score", "mean probability"))
    if kind not in SCORES:
        raise ArtefactError(
            f"{mask.id}: its score is '{kind[:30]}'; need one of {', '.join(SCORES)}. Infer again with this version."
        )
    return SCORES[kind]


def write_report(path: Path, series: Sequence[SeriesResult]) -> str:
    """Write the report of one study; return a hash of its meaning, free of times. Raises StudyError, OutputError."""
    with result.built("DICOM SR", series[0].mask):
        report = build_report(series)
    result.save(path, report)
    stated = [(one.seed, label, score, measures) for one in series for label, score, measures in one.candidates]
    return result.meaning_hash(str(report.SOPInstanceUID), repr(stated))


def build_report(series: Sequence[SeriesResult]) -> sr.Comprehensive3DSR:
    """Return the report in memory; all series are of one study."""
    seed = "\0".join(one.seed for one in series)
    segmentations = [one.segmentation for one in series if one.segmentation is not None]
    report = sr.Comprehensive3DSR(
        evidence=[*(image for one in series for image in _images(one)), *segmentations],
        content=_content(series),
        series_instance_uid=result.uid_of(seed, "report series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=result.uid_of(seed, "report instance"),
        instance_number=1,
        is_complete=True,
        is_verified=False,
        **result.equipment(series[0].model_hash),
        series_description="SliceStream measurements, for research only",
    )
    scheme = Dataset()
    scheme.CodingSchemeDesignator = SCHEME
    scheme.CodingSchemeUID = result.uid_of(SCHEME, "coding scheme")
    scheme.CodingSchemeName = "SliceStream, codes of its own"
    scheme.CodingSchemeVersion = "1"
    report.CodingSchemeIdentificationSequence = [scheme]
    return report


def _content(series: Sequence[SeriesResult]) -> Dataset:
    groups = [group for one in series for group in _groups(one)]
    root = ContainerContentItem(name=codes.DCM.ImagingMeasurementReport, template_id="1500")
    root.ContentSequence = ContentSequence()
    root.ContentSequence.extend(
        sr.LanguageOfContentItemAndDescendants(sr.CodedConcept("en-US", "RFC5646", "English (US)"))
    )
    root.ContentSequence.extend(_observer(series[0]))
    root.ContentSequence.append(
        CodeContentItem(
            name=codes.DCM.ProcedureReported,
            value=Code("25045-6", "LN", "CT unspecified body region"),
            relationship_type="HAS CONCEPT MOD",
        )
    )
    root.ContentSequence.append(_image_library(series))
    # highdicom's MeasurementReport asks for a group; TID 1500 is content with evaluations alone
    if groups:
        measurements = ContainerContentItem(name=codes.DCM.ImagingMeasurements, relationship_type="CONTAINS")
        measurements.ContentSequence = ContentSequence()
        for group in groups:
            measurements.ContentSequence.extend(group)
        root.ContentSequence.append(measurements)
    root.ContentSequence.append(_evaluations(series, len(groups)))
    return root


def _image_library(series: Sequence[SeriesResult]) -> ContainerContentItem:
    """Return TID 1600 with a group per series, which says once what its images share: 1,500 would say it at length."""
    library = ContainerContentItem(name=codes.DCM.ImageLibrary, relationship_type="CONTAINS")
    library.ContentSequence = ContentSequence()
    for one in series:
        group = ContainerContentItem(name=codes.DCM.ImageLibraryGroup, relationship_type="CONTAINS")
        group.ContentSequence = ContentSequence()
        shared = sr.ImageLibraryEntryDescriptors(one.sources[0])
        group.ContentSequence.extend(item for item in shared if item.name not in _POSITION)
        for source in _images(one):
            group.ContentSequence.append(
                ImageContentItem(
                    name=Code("260753009", "SCT", "Source"),
                    referenced_sop_class_uid=source.SOPClassUID,
                    referenced_sop_instance_uid=source.SOPInstanceUID,
                    relationship_type="CONTAINS",
                )
            )
        library.ContentSequence.append(group)
    return library


def _images(one: SeriesResult) -> list[Dataset]:
    """Return one header per image: slices may be frames of one."""
    return list({source.SOPInstanceUID: source for source in one.sources}.values())


def _observer(one: SeriesResult) -> sr.ObservationContext:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=result.uid_of(one.version, "device"),
        name=result.NAME,
        manufacturer_name=result.MANUFACTURER,
        model_name=f"{result.MODEL_NAME} {one.version}",
        serial_number=result.serial_number(one.model_hash),
    )
    context = sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    return sr.ObservationContext(observer_device_context=context)


def _evaluations(series: Sequence[SeriesResult], count: int) -> ContainerContentItem:
    """Return whether there is anything, and what a reader must know of it, in words."""
    container = ContainerContentItem(name=EVALUATIONS, relationship_type="CONTAINS")
    container.ContentSequence = ContentSequence()
    verdict = PRESENT if count else ABSENT
    container.ContentSequence.append(
        CodeContentItem(name=result.NODULE, value=verdict, relationship_type="CONTAINS"),
    )
    what = f"{count} nodule candidates" if count else "No nodule candidate"
    of = "1 series" if len(series) == 1 else f"{len(series)} series"
    text = f"{what} found in {of} by SliceStream {series[0].version}, not verified by anyone. {RESEARCH_ONLY}"
    container.ContentSequence.append(
        TextContentItem(name=codes.DCM.Comment, value=text, relationship_type="CONTAINS"),
    )
    return container


def _groups(one: SeriesResult) -> list[sr.VolumetricROIMeasurementsAndQualitativeEvaluations]:
    groups = []
    for number, (label, score, measures) in enumerate(one.candidates, start=1):
        assert one.segmentation is not None
        identifier, uid = result.tracking(one.seed, label)
        groups.append(
            sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=sr.TrackingIdentifier(uid=uid, identifier=identifier),
                referenced_segment=sr.ReferencedSegment(
                    sop_class_uid=one.segmentation.SOPClassUID,
                    sop_instance_uid=one.segmentation.SOPInstanceUID,
                    segment_number=number,
                    source_series=sr.SourceSeriesForSegmentation(one.sources[0].SeriesInstanceUID),
                ),
                finding_category=result.CATEGORY,
                finding_type=result.NODULE,
                finding_sites=[sr.FindingSite(anatomic_location=result.LUNG)],
                algorithm_id=sr.AlgorithmIdentification(name=result.NAME, version=one.version, family=result.AI),
                measurements=_measurements(score, measures, one.score),
            )
        )
    return groups


def _measurements(score: float, measures: Measures, kind: Code) -> list[sr.Measurement]:
    """Return the same figures as nodules.csv holds, rounded as there."""

    def number(
        figure: str, name: Code, unit: Code, *, method: Code | None = None, derivation: Code | None = None
    ) -> Any:
        value = rounded(figure, score) if figure == "score" else measures.written(figure)
        return sr.Measurement(name=name, value=value, unit=unit, method=method, derivation=derivation)

    cubic, mm, one = codes.UCUM.CubicMillimeter, codes.UCUM.Millimeter, codes.UCUM.NoUnits
    summed, hu = codes.DCM.SumOfSegmentedVoxelMethodForVolume, codes.DCM.AttenuationCoefficient
    return [
        number("volume_mm3", codes.SCT.Volume, cubic, method=summed),
        number("longest_diameter_mm", codes.SCT.LongAxis, mm),
        number("perpendicular_diameter_mm", codes.SCT.ShortAxis, mm),
        number("mean_hu", hu, HOUNSFIELD, derivation=codes.SCT.Mean),
        number("std_hu", hu, HOUNSFIELD, derivation=codes.SCT.StandardDeviation),
        number("score", kind, one),
    ]


def _segmentation(source: Dataset, seed: str, kind: Kind) -> Dataset:
    """Return what evidence must say of the SEG, whose UIDs follow from the mask."""
    found = copy.deepcopy(source)  # its elements too: setting one must not change the source's
    series, instance = segmentation_uids(seed, kind)
    found.SOPClassUID, found.SOPInstanceUID, found.SeriesInstanceUID = SOP_CLASSES[kind], instance, series
    return found
