"""CT, SEG and SR that reference one another, de-identified each by itself: still joined, still valid."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes

import canary
from ct_files import ct_series
from marked_files import cleaned, new_errors
from output_cases import SERIES
from slicestream.dicom.segmentation import write_segmentation
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.mask import Candidate, Mask


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[Dataset, Dataset, Path, Path]]]:
    """CT, SEG and SR that reference one another: (before, after, path before, path after) of each file."""
    folder = tmp_path_factory.mktemp("joined")
    paths = {"CT": ct_series(folder / "ct", StudyDate="20200301", StudyID="", AccessionNumber="A4711")}
    source = [dcmread(path, stop_before_pixels=True) for path in paths["CT"]]
    paths["SEG"] = [folder / "seg.dcm"]
    write_segmentation(folder / "seg.dcm", small_mask(), source)
    paths["SR"] = [folder / "sr.dcm"]
    report(dcmread(folder / "seg.dcm"), source).save_as(folder / "sr.dcm", enforce_file_format=True)
    out: dict[str, list[tuple[Dataset, Dataset, Path, Path]]] = {}
    for kind, files in paths.items():
        targets = [folder / f"out-{path.parent.name}-{path.name}" for path in files]
        out[kind] = [(dcmread(p), cleaned(p, target), p, target) for p, target in zip(files, targets, strict=True)]
    return out


def small_mask() -> Mask:
    labels = np.zeros((4, 16, 16), np.uint16)
    labels[1:3, 5:9, 4:8] = 1
    return Mask(
        kind="mask",
        id=SERIES,
        labels=labels,
        geometry=Geometry(shape=labels.shape, spacing_mm=(2.5, 0.7, 0.7)),
        volume_hash="",
        candidates=(Candidate(label=1, score=0.5, voxels=32),),
    )


def report(segmentation: Dataset, source: list[Dataset]) -> Dataset:
    """Return a TID 1500 report with a reader's name, a nodule's volume and a reference to its segment."""
    reader = hd.sr.PersonObserverIdentifyingAttributes(name=f"{canary.WORD}^Reader")
    group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=1,
            source_images=[
                hd.sr.SourceImageForSegmentation(image.SOPClassUID, image.SOPInstanceUID) for image in source
            ],
        ),
        tracking_identifier=hd.sr.TrackingIdentifier(uid=f"{canary.UID}.3", identifier=f"{canary.WORD} nodule"),
        measurements=[hd.sr.Measurement(name=codes.SCT.Volume, value=39.2, unit=codes.UCUM.CubicMillimeter)],
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(
            observer_person_context=hd.sr.ObserverContext(
                observer_type=codes.DCM.Person, observer_identifying_attributes=reader
            )
        ),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=[group],
    )
    return hd.sr.Comprehensive3DSR(
        evidence=[segmentation, *source],
        content=content,
        series_instance_uid=f"{canary.UID}.4",
        series_number=7,
        sop_instance_uid=f"{canary.UID}.5",
        instance_number=1,
        manufacturer="SliceStream",
        institution_name=canary.WORD,
    )


def references(dataset: Dataset) -> set[str]:
    return {str(e.value) for e in dataset.iterall() if e.keyword == "ReferencedSOPInstanceUID"}


def test_segmentation_and_report_still_reference_the_images(joined) -> None:
    images = {str(after.SOPInstanceUID) for _, after, _, _ in joined["CT"]}
    _, ct, _, _ = joined["CT"][0]
    _, seg, _, _ = joined["SEG"][0]
    before, sr, _, _ = joined["SR"][0]
    assert references(seg) == images
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == ct.SeriesInstanceUID
    assert seg.FrameOfReferenceUID == ct.FrameOfReferenceUID
    assert references(sr) == images | {str(seg.SOPInstanceUID)}
    assert len({item.StudyInstanceUID for item in (ct, seg, sr)}) == 1
    assert len({item.PatientID for item in (ct, seg, sr)}) == 1
    assert len(references(before)) == len(references(sr))


def test_a_report_keeps_its_measurements_and_loses_its_reader_and_its_texts(joined) -> None:
    before, after, _, path = joined["SR"][0]
    values = [[float(e.value) for e in dataset.iterall() if e.keyword == "NumericValue"] for dataset in (before, after)]
    assert values == [[39.2], [39.2]]
    assert canary.WORD in str(before)
    assert not canary.search(path.read_bytes(), canary.needles(set()))
    types = [[str(e.value) for e in d.iterall() if e.keyword == "ValueType"] for d in (before, after)]
    assert types[0] == types[1]


@pytest.mark.parametrize("kind", ["CT", "SEG", "SR"])
def test_dciodvfy_finds_no_new_error(kind: str, joined) -> None:
    for _, _, source, target in joined[kind]:
        assert not new_errors(source, target)


def test_frames_of_a_segmentation_are_the_same(joined) -> None:
    before, after, _, _ = joined["SEG"][0]
    assert after.PixelData == before.PixelData
    assert after.SegmentSequence[0].SegmentLabel == before.SegmentSequence[0].SegmentLabel
