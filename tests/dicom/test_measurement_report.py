from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import EnhancedCTImageStorage

import output_cases as cases
from slicestream import RESEARCH_ONLY
from slicestream.dicom import measurement_report as reports
from slicestream.dicom.segmentation import Kind, build_segmentation
from slicestream.errors import ArtefactError, StudyError
from slicestream.volumes.measures import Measures, measure

FIGURES = {
    ("118565006", None): "volume_mm3",
    ("103339001", None): "longest_diameter_mm",
    ("103340004", None): "perpendicular_diameter_mm",
    ("112031", "373098007"): "mean_hu",
    ("112031", "386136009"): "std_hu",
    ("mean-probability", None): "score",
}
UNITS = {"volume_mm3": "mm3", "mean_hu": "[hnsf'U]", "std_hu": "[hnsf'U]", "score": "1"}


def found(labels: np.ndarray | None = None) -> dict[int, Measures]:
    return measure(cases.volume(), cases.labels() if labels is None else labels, cases.ORIGIN_LPS_MM)


def one_series(headers: list[Dataset] | None = None, *, kind: Kind = Kind.BINARY) -> reports.SeriesResult:
    return reports.series_result(cases.mask(), headers or cases.headers(), found(), kind)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sr") / "report.dcm"
    reports.write_report(path, [one_series()])
    return path


@pytest.fixture(scope="module")
def nothing_found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sr") / "report.dcm"
    empty = cases.mask(np.zeros(cases.SHAPE, np.uint16))
    reports.write_report(path, [reports.series_result(empty, cases.headers(), {}, Kind.BINARY)])
    return path


def groups(path: Path) -> list[highdicom.sr.VolumetricROIMeasurementsAndQualitativeEvaluations]:
    report = highdicom.sr.srread(path)
    assert isinstance(report.content, highdicom.sr.MeasurementReport)
    return list(report.content.get_volumetric_roi_measurement_groups())


def figures(path: Path) -> list[dict[str, float]]:
    """Return the figures of each group by our names, with their units checked."""
    rows = []
    for group in groups(path):
        row = {}
        for one in group.get_measurements():
            derivation = one.derivation.value if one.derivation else None
            name = FIGURES[(one.name.value, derivation)]
            assert one.unit.value == UNITS.get(name, "mm")
            row[name] = float(one.value)
        rows.append(row)
    return rows


def items(dataset: Dataset, value_type: str) -> list[Dataset]:
    """Return the content items of one type, at any depth."""
    below = [item for child in dataset.get("ContentSequence", []) for item in items(child, value_type)]
    return ([dataset] if dataset.get("ValueType") == value_type else []) + below


def texts(path: Path) -> list[str]:
    return [item.TextValue for item in items(pydicom.dcmread(path), "TEXT")]


def test_each_candidate_has_its_figures_with_their_units(written: Path) -> None:
    first, second = figures(written)
    # a box of 2 slices x 4 rows x 6 columns of 2.5 x 0.7 x 0.8 mm, all of 50 HU
    assert first["volume_mm3"] == pytest.approx(48 * 2.5 * 0.7 * 0.8)
    assert first["longest_diameter_mm"] == pytest.approx(np.hypot(3 * 0.7, 5 * 0.8) + 0.75, abs=0.005)
    # at a right angle to the diagonal, from side to side
    across = 3 * 0.7 / (5 * 0.8) * np.hypot(3 * 0.7, 5 * 0.8)
    assert first["perpendicular_diameter_mm"] == pytest.approx(across + 0.75, abs=0.75)
    assert (first["mean_hu"], first["std_hu"], first["score"]) == (50.0, 0.0, 0.91)
    assert second["volume_mm3"] == pytest.approx(1.4)
    assert (second["mean_hu"], second["score"]) == (-800.0, 0.4)


def test_each_group_references_its_segment_by_the_same_tracking_uid(written: Path) -> None:
    segmentation = build_segmentation(cases.mask(), cases.headers())
    for number, group in enumerate(groups(written), start=1):
        segment = segmentation.SegmentSequence[number - 1]
        assert group.tracking_uid == segment.TrackingUID
        assert group.tracking_identifier == segment.TrackingID
        reference = items(group[0], "IMAGE")[0].ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == segmentation.SOPClassUID
        assert reference.ReferencedSegmentNumber == number


def test_a_labelmap_is_referenced_where_that_is_what_was_written(tmp_path: Path) -> None:
    reports.write_report(tmp_path / "sr.dcm", [one_series(kind=Kind.LABELMAP)])
    labelmap = build_segmentation(cases.mask(), cases.headers(), kind=Kind.LABELMAP)
    reference = items(groups(tmp_path / "sr.dcm")[0][0], "IMAGE")[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == labelmap.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == labelmap.SOPClassUID
    # dciodvfy does not know the SOP class yet, and takes its segment number for a mistake
    errors = {line for line in cases.dciodvfy(tmp_path / "sr.dcm").splitlines() if line.startswith("Error")}
    assert all("SOP Class that is not segmentation" in line for line in errors)


def test_findings_are_coded_and_the_algorithm_is_named(written: Path) -> None:
    group = groups(written)[0]
    assert group.finding_type.value == "27925004"
    assert [site.value.value for site in group.finding_sites] == ["39607008"]
    said = [(item.ConceptNameCodeSequence[0].CodeMeaning, item.TextValue) for item in items(group[0], "TEXT")]
    assert ("Algorithm Name", "SliceStream") in said
    assert any(name == "Algorithm Version" and cases.MODEL_HASH[:12] in value for name, value in said)


def test_it_is_complete_unverified_and_says_that_it_is_for_research_only(written: Path) -> None:
    dataset = pydicom.dcmread(written)
    assert (dataset.CompletionFlag, dataset.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert any("2 nodule candidates" in text and RESEARCH_ONLY in text for text in texts(written))
    assert "research only" in dataset.SeriesDescription
    scheme = dataset.CodingSchemeIdentificationSequence[0]
    assert scheme.CodingSchemeDesignator == reports.SCHEME


def test_evidence_is_the_whole_source_series_and_the_seg(written: Path) -> None:
    dataset, source = pydicom.dcmread(written), cases.headers()
    assert dataset.StudyInstanceUID == source[0].StudyInstanceUID
    evidence = {
        series.SeriesInstanceUID: {item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence}
        for series in dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    }
    segmentation = build_segmentation(cases.mask(), source)
    assert evidence == {
        source[0].SeriesInstanceUID: {header.SOPInstanceUID for header in source},
        segmentation.SeriesInstanceUID: {segmentation.SOPInstanceUID},
    }


def test_a_study_without_candidates_gets_a_report_that_says_so(nothing_found: Path) -> None:
    assert groups(nothing_found) == []
    dataset = pydicom.dcmread(nothing_found)
    verdicts = [
        (item.ConceptNameCodeSequence[0].CodeMeaning, item.ConceptCodeSequence[0].CodeMeaning)
        for item in items(dataset, "CODE")
    ]
    assert ("Nodule", "Absent") in verdicts
    assert any(
        "No nodule candidate found in 1 series" in text and RESEARCH_ONLY in text for text in texts(nothing_found)
    )
    source = {item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in items(dataset, "IMAGE")}
    assert source == {header.SOPInstanceUID for header in cases.headers()}


def test_dciodvfy_finds_no_error(written: Path, nothing_found: Path) -> None:
    for path in (written, nothing_found):
        said = cases.dciodvfy(path)
        assert "Comprehensive3DSR" in said
        assert "Error" not in said


def test_dcmqi_reads_the_same_figures(written: Path, tmp_path: Path) -> None:
    out, reader = tmp_path / "read.json", cases.program("tid1500reader", "dcmqi")
    subprocess.run([reader, "--inputDICOM", written, "--outputMetadata", out], check=True, capture_output=True)
    read = json.loads(out.read_text())["Measurements"]
    for group, row in zip(read, figures(written), strict=True):
        got = {}
        for one in group["measurementItems"]:
            derivation = one.get("derivationModifier", {}).get("CodeValue")
            got[FIGURES[(one["quantity"]["CodeValue"], derivation)]] = float(one["value"])
        assert got == row
        assert group["SourceSeriesForImageSegmentation"] == cases.headers()[0].SeriesInstanceUID
    assert [group["ReferencedSegment"] for group in read] == [1, 2]


def test_two_series_of_a_study_share_a_report(tmp_path: Path) -> None:
    other = cases.headers()
    for number, header in enumerate(other):
        header.SeriesInstanceUID, header.SOPInstanceUID = "1.2.3.9", f"1.2.3.9.{number}"
    reports.write_report(tmp_path / "sr.dcm", [one_series(), one_series(other)])
    assert len(groups(tmp_path / "sr.dcm")) == 4
    assert "Error" not in cases.dciodvfy(tmp_path / "sr.dcm")
    uids = {group.tracking_uid for group in groups(tmp_path / "sr.dcm")}
    assert len(uids) == 4
    assert any("4 nodule candidates found in 2 series" in text for text in texts(tmp_path / "sr.dcm"))


def test_frames_of_one_image_are_named_once(tmp_path: Path) -> None:
    frames = cases.headers()
    for number, header in enumerate(frames, start=1):
        header.SOPClassUID, header.SOPInstanceUID = EnhancedCTImageStorage, "1.2.3.4.77"
        header.ReferencedFrameNumber = number
    reports.write_report(tmp_path / "sr.dcm", [one_series(frames)])
    dataset = pydicom.dcmread(tmp_path / "sr.dcm")
    source, _ = dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert [item.ReferencedSOPInstanceUID for item in source.ReferencedSOPSequence] == ["1.2.3.4.77"]
    assert "Error" not in cases.dciodvfy(tmp_path / "sr.dcm")


def test_the_same_mask_gives_the_same_report_but_for_its_date() -> None:
    first, second = (reports.build_report([one_series()]) for _ in range(2))
    assert first.SOPInstanceUID == second.SOPInstanceUID
    assert first.ContentSequence == second.ContentSequence


def test_figures_of_another_mask_are_refused() -> None:
    with pytest.raises(ArtefactError, match="which are not its candidates"):
        reports.series_result(cases.mask(), cases.headers(), {7: found()[2]}, Kind.BINARY)


def test_headers_of_another_series_are_refused() -> None:
    with pytest.raises(ArtefactError, match="mm from the mask's"):
        one_series(cases.headers()[::-1])


def test_a_header_that_lacks_what_a_report_needs_is_named() -> None:
    source = cases.headers()
    for header in source:
        del header.StudyInstanceUID
    with pytest.raises(StudyError, match="cannot become a DICOM SR"):
        one_series(source)


def test_a_long_series_keeps_its_report_small() -> None:
    slices = 300
    shape = (slices, 8, 8)
    labels = np.zeros(shape, np.uint16)
    geometry = cases.Geometry(shape=shape, spacing_mm=cases.SPACING_MM)
    mask = cases.Mask(kind="mask", id=cases.SERIES, labels=labels, geometry=geometry, volume_hash="")
    report = reports.build_report([reports.series_result(mask, cases.headers(shape), {}, Kind.BINARY)])
    library = items(report, "IMAGE")
    assert len(library) == slices
    # what the images share stands once
    assert len(items(report, "NUM")) < 20


@pytest.mark.parametrize("values", cases.ODD_HEADERS.values(), ids=cases.ODD_HEADERS.keys())
def test_dciodvfy_finds_no_error_with_odd_headers(values: dict[str, object], tmp_path: Path) -> None:
    reports.write_report(tmp_path / "odd.dcm", [one_series(cases.odd_headers(values))])
    path = tmp_path / "odd.dcm"
    said = cases.dciodvfy(path)
    assert "Comprehensive3DSR" in said
    assert "Error" not in said
    assert pydicom.dcmread(path).PatientName == values.get("PatientName", "")


def test_score_by_a_second_network_has_a_code_of_its_own(tmp_path: Path) -> None:
    rescored = dataclasses.replace(cases.mask(), settings={"score": "second network"})
    reports.write_report(tmp_path / "a.dcm", [reports.series_result(rescored, cases.headers(), found(), Kind.BINARY)])
    names = {m.name.value for group in groups(tmp_path / "a.dcm") for m in group.get_measurements()}
    assert "second-network" in names
    assert "mean-probability" not in names
    odd = dataclasses.replace(cases.mask(), settings={"score": "a guess"})
    with pytest.raises(ArtefactError, match="its score is 'a guess'; need one of mean probability, second network"):
        reports.series_result(odd, cases.headers(), found(), Kind.BINARY)
