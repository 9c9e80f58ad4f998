from __future__ import annotations

import re
import subprocess
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import RLELossless

import output_cases as cases
from slicestream import RESEARCH_ONLY
from slicestream.dicom.result import sources_of
from slicestream.dicom.segmentation import Kind, build_segmentation, write_segmentation
from slicestream.errors import ArtefactError, StudyError
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.mask import Candidate, Mask


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seg") / "case.dcm"
    write_segmentation(path, cases.mask(), cases.headers())
    return path


def voxels_by_position(path: Path) -> np.ndarray:
    """Rebuild labels from frames by their stated position and segment, in the geometry of the test series."""
    dataset = pydicom.dcmread(path)
    labels = np.zeros(cases.SHAPE, np.uint16)
    for frame, groups in zip(dataset.pixel_array, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        z = float(groups.PlanePositionSequence[0].ImagePositionPatient[2])
        index = round((z - cases.ORIGIN_LPS_MM[2]) / cases.SPACING_MM[0])
        number = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        labels[index][frame > 0] = number
    return labels


def test_every_voxel_stands_at_its_position_in_its_segment(written: Path) -> None:
    expected = cases.labels()
    expected[expected == 2] = 1
    expected[expected == 5] = 2
    assert np.array_equal(voxels_by_position(written), expected)


def test_highdicom_reads_the_same_volume_back(written: Path) -> None:
    segmentation = highdicom.seg.segread(written)
    uids = [header.SOPInstanceUID for header in cases.headers()]
    stacked = segmentation.get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(stacked > 0, cases.labels() > 0)
    assert segmentation.number_of_segments == 2


def test_simpleitk_opens_it_and_counts_the_same_voxels(written: Path) -> None:
    image = SimpleITK.ReadImage(str(written))
    assert int((SimpleITK.GetArrayFromImage(image) > 0).sum()) == 49
    assert image.GetSize()[:2] == (48, 40)


def dcmqi_voxels(path: Path, folder: Path) -> list[np.ndarray]:
    """Return what dcmqi makes of each segment, slices as in the test series."""
    words = [
        cases.program("segimage2itkimage", "dcmqi"),
        "--inputDICOM",
        path,
        "--outputDirectory",
        folder,
        "-t",
        "nrrd",
    ]
    subprocess.run(words, check=True, capture_output=True)
    found = []
    for each in sorted(folder.glob("*.nrrd"), key=lambda name: int(name.stem)):
        image = SimpleITK.ReadImage(str(each))
        labels = np.zeros(cases.SHAPE, bool)
        for index, row, column in np.argwhere(SimpleITK.GetArrayFromImage(image) > 0).tolist():
            place = np.array(image.TransformIndexToPhysicalPoint((column, row, index))) - cases.ORIGIN_LPS_MM
            z, y, x = np.rint(place[::-1] / cases.SPACING_MM).astype(int)
            labels[z, y, x] = True
        found.append(labels)
    return found


def test_dcmqi_reads_the_same_voxels_at_the_same_places(written: Path, tmp_path: Path) -> None:
    first, second = dcmqi_voxels(written, tmp_path)
    assert np.array_equal(first, cases.labels() == 2)
    assert np.array_equal(second, cases.labels() == 5)


def test_a_labelmap_is_compressed_and_read_back_by_highdicom_voxel_by_voxel(tmp_path: Path) -> None:
    path = tmp_path / "map.dcm"
    write_segmentation(path, cases.mask(), cases.headers(), kind=Kind.LABELMAP)
    dataset = pydicom.dcmread(path)
    assert (dataset.SegmentationType, dataset.file_meta.TransferSyntaxUID) == ("LABELMAP", RLELossless)
    uids = [header.SOPInstanceUID for header in cases.headers()]
    stacked = highdicom.seg.segread(path).get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    expected = cases.labels()
    expected[expected == 2] = 1
    expected[expected == 5] = 2
    assert np.array_equal(stacked, expected)


def test_a_labelmap_goes_beside_the_binary_one_and_tracks_the_same_candidates() -> None:
    binary, labelmap = (build_segmentation(cases.mask(), cases.headers(), kind=kind) for kind in Kind)
    assert binary.SOPInstanceUID != labelmap.SOPInstanceUID
    assert binary.SeriesInstanceUID != labelmap.SeriesInstanceUID
    assert binary.FrameOfReferenceUID == labelmap.FrameOfReferenceUID
    tracked = [
        {segment.TrackingUID for segment in one.SegmentSequence if "TrackingUID" in segment}
        for one in (binary, labelmap)
    ]
    assert len(tracked[0]) == 2
    assert tracked[0] == tracked[1]


def test_dciodvfy_finds_nothing_in_a_labelmap_but_that_it_does_not_know_it(tmp_path: Path) -> None:
    write_segmentation(tmp_path / "map.dcm", cases.mask(), cases.headers(), kind=Kind.LABELMAP)
    errors = [line for line in cases.dciodvfy(tmp_path / "map.dcm").splitlines() if line.startswith("Error")]
    unknown = ("Information Object Not found", "SegmentNumber not monotonically increasing")  # 0 is background
    assert all(any(words in line for words in unknown) for line in errors)


def test_hundreds_of_candidates_fit_a_labelmap(tmp_path: Path) -> None:
    found = np.zeros(cases.SHAPE, np.uint16)
    found[2, ::2, ::2] = np.arange(1, 481).reshape(20, 24)
    write_segmentation(tmp_path / "map.dcm", cases.mask(found), cases.headers(), kind=Kind.LABELMAP)
    dataset = pydicom.dcmread(tmp_path / "map.dcm")
    assert np.array_equal(dataset.pixel_array.reshape(-1, *cases.SHAPE[1:])[0], found[2])


def test_a_mask_read_back_from_its_seg_gives_the_same_seg(written: Path, tmp_path: Path) -> None:
    uids = [header.SOPInstanceUID for header in cases.headers()]
    labels = highdicom.seg.segread(written).get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    write_segmentation(tmp_path / "again.dcm", cases.mask(labels.astype(np.uint16)), cases.headers())
    first, again = pydicom.dcmread(written), pydicom.dcmread(tmp_path / "again.dcm")
    assert again.PixelData == first.PixelData
    assert str(again.SharedFunctionalGroupsSequence) == str(first.SharedFunctionalGroupsSequence)
    places = [
        [
            (
                list(frame.PlanePositionSequence[0].ImagePositionPatient),
                frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber,
            )
            for frame in one.PerFrameFunctionalGroupsSequence
        ]
        for one in (first, again)
    ]
    assert places[0] == places[1]


def test_it_references_the_source_series_and_shares_its_frame(written: Path) -> None:
    dataset, source = pydicom.dcmread(written), cases.headers()
    assert dataset.FrameOfReferenceUID == source[0].FrameOfReferenceUID
    assert dataset.StudyInstanceUID == source[0].StudyInstanceUID
    assert dataset.PatientID == "LAB-1"
    series = dataset.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == source[0].SeriesInstanceUID
    referenced = {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence}
    assert referenced == {header.SOPInstanceUID for header in source}


def test_segments_are_coded_as_nodules_of_the_lung_with_score_model_and_notice(written: Path) -> None:
    dataset = pydicom.dcmread(written)
    segment = dataset.SegmentSequence[0]
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "27925004"
    assert segment.AnatomicRegionSequence[0].CodeValue == "39607008"
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "SliceStream"
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
    assert not dataset.get("ContentCreatorName")  # no person made it
    assert cases.MODEL_HASH[:12] in algorithm.AlgorithmVersion
    assert segment.SegmentLabel == "Nodule candidate 2, score 0.910"
    assert RESEARCH_ONLY in segment.SegmentDescription
    assert "research only" in dataset.ContentDescription
    assert "research only" in dataset.SeriesDescription
    assert dataset.SegmentationType == "BINARY"


def test_the_same_mask_gives_the_same_file_but_for_its_date() -> None:
    first, second = (build_segmentation(cases.mask(), cases.headers()) for _ in range(2))
    assert first.PixelData == second.PixelData
    lines = [
        [line for line in str(dataset).splitlines() if not re.search(r" (DA|TM|DT): ", line)]
        for dataset in (first, second)
    ]
    assert lines[0] == lines[1]
    assert len(lines[0]) > 150


def test_another_mask_gets_other_uids() -> None:
    other = Mask(**{name: getattr(cases.mask(), name) for name in Mask.__slots__} | {"content_hash": "ef" * 32})
    ours, theirs = (build_segmentation(mask, cases.headers()) for mask in (cases.mask(), other))
    assert ours.SOPInstanceUID != theirs.SOPInstanceUID
    assert ours.SeriesInstanceUID != theirs.SeriesInstanceUID


def test_hundreds_of_candidates_are_written(tmp_path: Path) -> None:
    found = np.zeros(cases.SHAPE, np.uint16)
    found[2, ::2, ::2] = np.arange(1, 481).reshape(20, 24)
    path = tmp_path / "many.dcm"
    write_segmentation(path, cases.mask(found), cases.headers())
    assert np.array_equal(voxels_by_position(path), found)


def test_dciodvfy_finds_no_error_with_sparse_headers(written: Path) -> None:
    said = cases.dciodvfy(written)
    assert "Segmentation" in said
    assert "Error" not in said


REAL = {
    "lidc-mini": "lidc-mini/images/patient_0001/exam_1",
    "fullframe-open": "fullframe-open/images/patient_9001/exam_1",
    "Siemens, JPEG-LS": "ct/CPTAC-PDA_C3N-00249/dicom",
    "Siemens, deflated": "ct/Lung-PET-CT-Dx_A0002/dicom",
}


@pytest.mark.real
@pytest.mark.parametrize("folder", REAL.values(), ids=REAL.keys())
def test_dciodvfy_finds_no_error_with_real_headers(folder: str, data: Path, tmp_path: Path) -> None:
    source = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted((data / folder).glob("*.dcm"))]
    source.sort(key=lambda header: float(header.ImagePositionPatient[2]))
    z_mm = [float(header.ImagePositionPatient[2]) for header in source]
    row_mm, column_mm = (float(mm) for mm in source[0].PixelSpacing)
    shape = (len(source), source[0].Rows, source[0].Columns)
    geometry = Geometry(shape=shape, spacing_mm=((z_mm[-1] - z_mm[0]) / (len(z_mm) - 1), row_mm, column_mm))
    labels = np.zeros(shape, np.uint16)
    labels[1:3, 40:50, 60:75] = 1
    mask = Mask(
        kind="mask",
        id=cases.SERIES,
        labels=labels,
        geometry=geometry,
        volume_hash="",
        model_hash=cases.MODEL_HASH,
        candidates=(Candidate(label=1, score=0.5, voxels=300),),
    )
    path = tmp_path / "real.dcm"
    write_segmentation(path, mask, source)
    said = cases.dciodvfy(path)
    assert "Segmentation" in said
    assert "Error" not in said
    assert int(pydicom.dcmread(path).pixel_array.sum()) == 300


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda headers: headers[:-1], "source headers of"),
        (lambda headers: headers[::-1], "mm from the mask's"),
    ],
    ids=["a slice short", "another order"],
)
def test_headers_of_another_series_are_refused(change, words: str, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=words):
        write_segmentation(tmp_path / "no.dcm", cases.mask(), change(cases.headers()))
    assert list(tmp_path.iterdir()) == []


def test_a_label_without_its_candidate_is_refused(tmp_path: Path) -> None:
    lame = Mask(**{name: getattr(cases.mask(), name) for name in Mask.__slots__} | {"candidates": ()})
    with pytest.raises(ArtefactError, match="each label needs its candidate"):
        write_segmentation(tmp_path / "no.dcm", lame, cases.headers())


def test_a_mask_without_candidates_has_no_seg(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no candidate"):
        write_segmentation(tmp_path / "no.dcm", cases.mask(np.zeros(cases.SHAPE, np.uint16)), cases.headers())


def test_a_header_without_frame_of_reference_or_with_an_odd_sex_is_completed() -> None:
    source = cases.headers()
    for header in source:
        del header.FrameOfReferenceUID
        header.PatientSex = "UNKNOWN"
    segmentation = build_segmentation(cases.mask(), source)
    assert segmentation.FrameOfReferenceUID.startswith("2.25.")
    assert segmentation.PatientSex == ""


@pytest.mark.parametrize("values", cases.ODD_HEADERS.values(), ids=cases.ODD_HEADERS.keys())
def test_dciodvfy_finds_no_error_with_odd_headers(values: dict[str, object], tmp_path: Path) -> None:
    write_segmentation(tmp_path / "odd.dcm", cases.mask(), cases.odd_headers(values))
    said = cases.dciodvfy(tmp_path / "odd.dcm")
    assert "Segmentation" in said
    assert "Error" not in said
    written = pydicom.dcmread(tmp_path / "odd.dcm")
    assert written.PatientName == values.get("PatientName", "")
    if "StudyDate" in values:
        assert (written.StudyDate, written.StudyTime, written.PatientBirthDate) == ("20091122", "121438", "")


def test_a_header_that_no_dicom_file_may_have_is_named(tmp_path: Path) -> None:
    source = cases.headers()
    for header in source:
        header.SpecificCharacterSet = "ISO_IR 999"
    with pytest.raises(StudyError, match="ISO_IR 999"):
        write_segmentation(tmp_path / "no.dcm", cases.mask(), source)
    assert list(tmp_path.iterdir()) == []


def test_a_series_of_one_slice_is_written(tmp_path: Path) -> None:
    labels = np.zeros((1, *cases.SHAPE[1:]), np.uint16)
    labels[0, 3:5, 7:9] = 1
    geometry = Geometry(shape=labels.shape, spacing_mm=cases.SPACING_MM)
    mask = Mask(
        kind="mask",
        id=cases.SERIES,
        labels=labels,
        geometry=geometry,
        volume_hash="",
        candidates=(Candidate(label=1, score=0.5, voxels=4),),
    )
    write_segmentation(tmp_path / "one.dcm", mask, cases.headers()[:1])
    assert int(pydicom.dcmread(tmp_path / "one.dcm").pixel_array.sum()) == 4
    assert "Error" not in cases.dciodvfy(tmp_path / "one.dcm")


def test_a_prone_oblique_series_keeps_its_orientation_and_another_is_refused(tmp_path: Path) -> None:
    tilt = np.deg2rad(10.0)
    column, row = np.array([-1.0, 0.0, 0.0]), np.array([0.0, -np.cos(tilt), np.sin(tilt)])
    normal = np.cross(column, row)
    axes = tuple(tuple(float(n) for n in axis) for axis in (normal, row, column))
    geometry = Geometry(shape=cases.SHAPE, spacing_mm=cases.SPACING_MM, direction_lps=axes)
    source = cases.headers()
    for index, header in enumerate(source):
        header.ImageOrientationPatient = [round(float(n), 8) for n in (*column, *row)]
        place = np.array(cases.ORIGIN_LPS_MM) + index * cases.SPACING_MM[0] * normal
        header.ImagePositionPatient = [round(float(n), 6) for n in place]
    plain = cases.mask()
    mask = Mask(**{name: getattr(plain, name) for name in Mask.__slots__} | {"geometry": geometry})
    write_segmentation(tmp_path / "prone.dcm", mask, source)
    dataset = pydicom.dcmread(tmp_path / "prone.dcm")
    shared = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    assert np.allclose(shared.ImageOrientationPatient, [*column, *row], atol=1e-6)
    uids = [header.SOPInstanceUID for header in source]
    stacked = highdicom.seg.segread(tmp_path / "prone.dcm").get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(stacked > 0, cases.labels() > 0)
    assert "Error" not in cases.dciodvfy(tmp_path / "prone.dcm")
    for header in source:
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    with pytest.raises(ArtefactError, match="turned"):
        write_segmentation(tmp_path / "turned.dcm", mask, source)


def test_the_headers_stay_as_they_were() -> None:
    source = cases.odd_headers(cases.ODD_HEADERS["ACR-NEMA dates"])
    before = [str(header) for header in source]
    build_segmentation(cases.mask(), source)
    sources_of(cases.mask(), source)[0].SOPInstanceUID = "1.2.3.99"
    assert [str(header) for header in source] == before
