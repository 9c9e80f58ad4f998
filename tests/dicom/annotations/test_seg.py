from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from highdicom.seg import Segmentation, SegmentDescription
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import RLELossless

import output_cases as cases
import places
from slicestream.dicom.annotations import seg
from slicestream.dicom.annotations.drawing import SeriesPlace
from slicestream.dicom.segmentation import write_segmentation
from slicestream.errors import AnnotationError
from slicestream.volumes.geometry import Geometry

ALTERED = Code("49755003", "SCT", "Morphologically Altered Structure")
NODULE, LUNG = Code("27925004", "SCT", "Nodule"), Code("39607008", "SCT", "Lung")
LABELLED = ("first", "second", "third")


def description(number: int, label: str, kind: Code = NODULE) -> SegmentDescription:
    return SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=ALTERED,
        segmented_property_type=kind,
        algorithm_type="MANUAL",
    )


def written(
    path: Path,
    where: SeriesPlace,
    pixels: np.ndarray,
    *,
    form: str = "BINARY",
    kinds: tuple[Code, ...] = (NODULE, NODULE, NODULE),
    **options: object,
) -> Path:
    """Write a SEG on `where` with highdicom, as another program would."""
    segmentation = Segmentation(
        source_images=places.headers(where),
        pixel_array=pixels,
        segmentation_type=form,
        segment_descriptions=[description(n, LABELLED[n - 1], kind) for n, kind in enumerate(kinds, start=1)],
        series_instance_uid="1.2.9",
        series_number=1,
        sop_instance_uid="1.2.10",
        instance_number=1,
        manufacturer="Another",
        manufacturer_model_name="program",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    segmentation.save_as(path)
    return path


def edited(path: Path, change: Callable[[Dataset], object]) -> Path:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    return path


def frames(dataset: Dataset) -> list[Dataset]:
    return list(dataset.PerFrameFunctionalGroupsSequence)


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    return written(tmp_path / "seg.dcm", places.place(), places.blobs())


def test_our_own_export_comes_back_as_the_same_labels(tmp_path: Path) -> None:
    path = tmp_path / "case.dcm"
    write_segmentation(path, cases.mask(), cases.headers())
    where = SeriesPlace(
        uid="1.2.3.4",
        frame_of_reference_uid="1.2.3.5",
        instance_uids=tuple(header.SOPInstanceUID for header in cases.headers()),
        geometry=cases.geometry(),
        origin_lps_mm=cases.ORIGIN_LPS_MM,
    )
    drawing = seg.read(path, where)
    assert np.array_equal(drawing.labels, np.searchsorted([0, 2, 5], cases.labels()))
    assert [nodule.name for nodule in drawing.nodules] == [
        "Nodule candidate 2, score 0.910",
        "Nodule candidate 5, score 0.400",
    ]
    assert seg.referenced(path) == "1.2.3.4"


@pytest.mark.parametrize("direction", [places.AXIAL, places.oblique()], ids=["axial", "oblique"])
@pytest.mark.parametrize("form", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_each_type_of_another_program_comes_back_as_the_same_labels(
    form: str, direction: np.ndarray, tmp_path: Path
) -> None:
    where = places.place(direction=direction)
    pixels = places.blobs()
    drawing = seg.read(written(tmp_path / "seg.dcm", where, pixels, form=form), where)
    assert np.array_equal(drawing.labels, pixels)
    assert [(nodule.label, nodule.name) for nodule in drawing.nodules] == [(1, "first"), (2, "second"), (3, "third")]
    assert not any("grid" in note for note in drawing.notes)
    assert any("fractional" in note for note in drawing.notes) == (form == "FRACTIONAL")


@pytest.mark.parametrize("form", ["FRACTIONAL", "LABELMAP"])
def test_compressed_frames_are_read(form: str, tmp_path: Path) -> None:
    path = written(tmp_path / "seg.dcm", places.place(), places.blobs(), form=form, transfer_syntax_uid=RLELossless)
    assert np.array_equal(seg.read(path, places.place()).labels, places.blobs())


@pytest.mark.parametrize("form", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_frames_whose_bits_end_within_a_byte_are_read(form: str, tmp_path: Path) -> None:
    where = places.place((6, 5, 7))
    pixels = np.random.default_rng(2).integers(0, 4, (6, 5, 7), np.uint8)
    drawing = seg.read(written(tmp_path / "seg.dcm", where, pixels, form=form), where)
    assert np.array_equal(drawing.labels, pixels)


def test_a_seg_without_a_marked_voxel_is_a_series_without_nodules(tmp_path: Path) -> None:
    where = places.place()
    faint = np.full(where.geometry.shape, 0.2, np.float32)
    path = written(tmp_path / "seg.dcm", where, faint, form="FRACTIONAL", kinds=(NODULE,))
    drawing = seg.read(path, where)
    assert (drawing.nodules, drawing.labels.any()) == ((), np.False_)
    assert drawing.notes[-1] == "nothing is marked"


def test_fractions_from_one_half_are_nodule(tmp_path: Path) -> None:
    where = places.place()
    fraction = np.zeros(where.geometry.shape, np.float32)
    fraction[3, 10, 10:15] = (0.2, 0.49, 0.5, 0.8, 1.0)
    path = written(tmp_path / "seg.dcm", where, fraction, form="FRACTIONAL", kinds=(NODULE,), max_fractional_value=200)
    assert np.argwhere(seg.read(path, where).labels).tolist() == [[3, 10, 12], [3, 10, 13], [3, 10, 14]]


def test_frames_in_any_order_and_empty_ones_left_out_land_on_their_slices(tmp_path: Path) -> None:
    where, pixels = places.place(), places.blobs()
    path = written(tmp_path / "seg.dcm", where, pixels, form="FRACTIONAL", omit_empty_frames=True)

    def shuffle(dataset: Dataset) -> None:
        order = np.random.default_rng(1).permutation(int(dataset.NumberOfFrames))
        dataset.PixelData = dataset.pixel_array[order].tobytes()
        dataset.PerFrameFunctionalGroupsSequence = [frames(dataset)[n] for n in order]

    assert np.array_equal(seg.read(edited(path, shuffle), where).labels, pixels)


@pytest.mark.parametrize("flip", [(1, -1, 1), (1, 1, -1), (-1, -1, 1)], ids=["rows", "columns", "slices and rows"])
def test_a_seg_whose_axes_run_the_other_way_lands_in_place(flip: tuple[int, int, int], tmp_path: Path) -> None:
    where = places.place()
    last = [n - 1 if sign < 0 else 0 for n, sign in zip(where.geometry.shape, flip, strict=True)]
    x, y, z = np.array(where.origin_lps_mm) + where.geometry.offset_lps_mm(np.array(last, float))
    turned = places.place(direction=places.AXIAL * np.array(flip)[:, None], origin_lps_mm=(x, y, z))
    pixels = places.blobs()[tuple(slice(None, None, sign) for sign in flip)]
    drawing = seg.read(written(tmp_path / "seg.dcm", turned, np.ascontiguousarray(pixels)), where)
    assert np.array_equal(drawing.labels, places.blobs())
    assert not any("grid" in note for note in drawing.notes)


def test_frames_without_positions_are_placed_by_their_source_images(binary: Path) -> None:
    def forget(dataset: Dataset) -> None:
        for group in frames(dataset):
            del group.PlanePositionSequence

    drawing = seg.read(edited(binary, forget), places.place())
    assert np.array_equal(drawing.labels, places.blobs())
    assert any("placed by their source images" in note for note in drawing.notes)


def test_the_one_instance_of_a_multi_frame_series_names_no_slice(binary: Path) -> None:
    def forget(dataset: Dataset) -> None:
        for group in frames(dataset):
            del group.PlanePositionSequence

    many = replace(places.place(), instance_uids=(f"{places.SERIES}.2",) * 8)
    assert np.array_equal(seg.read(binary, many).labels, places.blobs())
    with pytest.raises(AnnotationError, match="no ImagePositionPatient and no source"):
        seg.read(edited(binary, forget), many)


def test_a_frame_with_neither_position_nor_source_is_refused(binary: Path) -> None:
    def forget(dataset: Dataset) -> None:
        del frames(dataset)[1].PlanePositionSequence
        del frames(dataset)[1].DerivationImageSequence

    with pytest.raises(AnnotationError, match=r"frame 2 .*no ImagePositionPatient and no source"):
        seg.read(edited(binary, forget), places.place())


def test_frames_that_name_another_slice_than_theirs_go_by_position_and_it_is_said(binary: Path) -> None:
    def swap(dataset: Dataset) -> None:
        a, b = (frames(dataset)[n].DerivationImageSequence[0].SourceImageSequence[0] for n in (0, 1))
        a.ReferencedSOPInstanceUID, b.ReferencedSOPInstanceUID = b.ReferencedSOPInstanceUID, a.ReferencedSOPInstanceUID

    drawing = seg.read(edited(binary, swap), places.place())
    assert np.array_equal(drawing.labels, places.blobs())
    assert any("2 frames lie on another slice" in note for note in drawing.notes)


def test_a_seg_on_a_finer_grid_of_sagittal_planes_is_carried_over_as_simpleitk_would(tmp_path: Path) -> None:
    where = places.place()
    sagittal = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])  # planes to the left, rows up
    fine = places.place(
        (76, 40, 56), spacing_mm=(0.5, 0.5, 0.5), direction=sagittal, origin_lps_mm=(-100.2, -50.3, 30.1)
    )
    ball = np.linalg.norm(places.points(fine) - np.array([-81.0, -36.0, 40.0]), axis=-1) < 7.3
    path = written(tmp_path / "seg.dcm", fine, ball.astype(np.uint8), kinds=(NODULE,))
    drawing = seg.read(path, where)
    image = SimpleITK.GetImageFromArray(ball.astype(np.uint8))
    image.SetSpacing((0.5, 0.5, 0.5))
    image.SetDirection(sagittal[::-1].T.ravel().tolist())
    image.SetOrigin(fine.origin_lps_mm)
    target = SimpleITK.Image((48, 40, 8), SimpleITK.sitkUInt8)
    target.SetSpacing((0.8, 0.7, 2.5))
    target.SetOrigin(where.origin_lps_mm)
    expected = SimpleITK.Resample(image, target, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
    assert places.iou(drawing.labels > 0, SimpleITK.GetArrayFromImage(expected) > 0) == 1.0
    assert (drawing.labels > 0).sum() * 1.4 == pytest.approx(4 / 3 * np.pi * 7.3**3, rel=0.05)
    assert any("another grid" in note for note in drawing.notes)


def test_a_seg_of_thick_slices_fills_the_thin_ones_between(tmp_path: Path) -> None:
    thick = places.place((4, 40, 48), spacing_mm=(5.0, 0.7, 0.8), series="1.2.99")
    pixels = np.zeros((4, 40, 48), np.uint8)
    pixels[1:3, 10:14, 20:26] = 1
    path = written(tmp_path / "seg.dcm", thick, pixels, kinds=(NODULE,))
    drawing = seg.read(path, places.place())
    assert (drawing.labels > 0).sum() == 2 * pixels.sum()
    assert np.flatnonzero(drawing.labels.any(axis=(1, 2))).tolist() == [1, 2, 3, 4]
    assert any("another series of the same frame" in note for note in drawing.notes)
    assert any("another grid" in note for note in drawing.notes)


def test_missing_frames_between_stay_empty(tmp_path: Path) -> None:
    where = places.place()
    pixels = np.zeros(where.geometry.shape, np.uint8)
    pixels[[1, 3, 5], 10:14, 20:26] = 1
    drawing = seg.read(written(tmp_path / "seg.dcm", where, pixels, kinds=(NODULE,)), where)
    assert np.flatnonzero(drawing.labels.any(axis=(1, 2))).tolist() == [1, 3, 5]
    assert any("3 separate parts" in note for note in drawing.notes)


def test_where_segments_overlap_the_smaller_has_the_voxel(tmp_path: Path) -> None:
    where = places.place()
    pixels = np.zeros((*where.geometry.shape, 3), np.uint8)
    pixels[2:5, 10:20, 10:20, 0] = 1
    pixels[3, 12:15, 12:15, 1] = 1
    pixels[3, 12:15, 12:15, 2] = 1  # wholly covered by its like
    drawing = seg.read(written(tmp_path / "seg.dcm", where, pixels), where)
    assert np.bincount(drawing.labels.ravel())[1:].tolist() == [291, 9]
    assert [nodule.name for nodule in drawing.nodules] == ["first", "second"]
    assert any("covered wholly by others, left out: 'third'" in note for note in drawing.notes)


def test_a_segment_too_small_for_the_grid_keeps_its_place(tmp_path: Path) -> None:
    fine = places.place((8, 200, 240), spacing_mm=(0.3, 0.1, 0.1))
    pixels = np.zeros(fine.geometry.shape, np.uint8)
    pixels[4, 103, 37] = 1
    drawing = seg.read(written(tmp_path / "seg.dcm", fine, pixels, kinds=(NODULE,)), places.place())
    (nodule,) = drawing.nodules
    assert (nodule.label, nodule.form, drawing.labels.any()) == (0, "point", np.False_)
    assert nodule.centre_lps_mm == pytest.approx((-96.3, -40.2, 31.45))


@pytest.mark.parametrize(
    ("structure", "labels"),
    [("second", [2]), ("SEC*", [2]), ("/^(first|third)$/", [1, 3]), ("Nodule", [1, 3])],
    ids=["name", "wildcard", "regular expression", "coded meaning"],
)
def test_segments_are_chosen_by_label_or_meaning(structure: str, labels: list[int], tmp_path: Path) -> None:
    path = written(tmp_path / "seg.dcm", places.place(), places.blobs(), kinds=(NODULE, LUNG, NODULE))
    drawing = seg.read(path, places.place(), structure=structure)
    assert np.array_equal(drawing.labels > 0, np.isin(places.blobs(), labels))
    assert [nodule.name for nodule in drawing.nodules] == [LABELLED[n - 1] for n in labels]
    assert any(structure in note for note in drawing.notes)


def test_a_lung_among_the_nodules_is_never_taken_silently(tmp_path: Path) -> None:
    path = written(tmp_path / "seg.dcm", places.place(), places.blobs(), kinds=(NODULE, LUNG, NODULE))
    with pytest.raises(AnnotationError, match=r"'second \(Lung\)'.*--structure"):
        seg.read(path, places.place())
    with pytest.raises(AnnotationError, match=r"no segment matches 'tumour'; there are 'first \(Nodule\)'"):
        seg.read(path, places.place(), structure="tumour")


def test_a_single_segment_is_taken_whatever_it_is_and_it_is_said(tmp_path: Path) -> None:
    pixels = (places.blobs() == 1).astype(np.uint8)
    path = written(tmp_path / "seg.dcm", places.place(), pixels, kinds=(LUNG,))
    drawing = seg.read(path, places.place())
    assert drawing.labels.sum() == pixels.sum()
    assert any("only segment taken: 'first (Lung)'" in note for note in drawing.notes)


def test_another_frame_of_reference_is_refused(binary: Path) -> None:
    with pytest.raises(AnnotationError, match="frame of reference"):
        seg.read(binary, places.place(frame="1.2.3"))


def test_a_series_without_frame_of_reference_is_known_by_its_uid(binary: Path) -> None:
    assert np.array_equal(seg.read(binary, places.place(frame="")).labels, places.blobs())
    with pytest.raises(AnnotationError, match="frame of reference"):
        seg.read(binary, places.place(frame="", series="1.2.3"))


def test_a_mask_that_lies_mostly_outside_the_series_is_refused(binary: Path) -> None:
    x, y, z = places.place().origin_lps_mm
    cut = places.place((3, 40, 48), origin_lps_mm=(x, y, z + 2.5))
    with pytest.raises(AnnotationError, match=r"'second' lies to 50% within series .* at least 90%"):
        seg.read(binary, cut)


def remove(keyword: str) -> Callable[[Dataset], None]:
    return lambda dataset: delattr(dataset, keyword)


DAMAGE = {
    "no pixels": remove("PixelData"),
    "pixels cut short": lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:100]),
    "no segments": remove("SegmentSequence"),
    "no frames": remove("PerFrameFunctionalGroupsSequence"),
    "fewer frames than said": lambda dataset: setattr(dataset, "NumberOfFrames", 3),
    "no geometry": remove("SharedFunctionalGroupsSequence"),
    "no type": remove("SegmentationType"),
    "a surface": lambda dataset: setattr(dataset, "SegmentationType", "SURFACE"),
    "a huge frame": lambda dataset: (setattr(dataset, "Rows", 65535), setattr(dataset, "Columns", 65535)),
    "a skewed frame": lambda dataset: setattr(
        dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0],
        "ImageOrientationPatient",
        [1, 0, 0, 0.5, 0.5, 0],
    ),
    "frames of two orientations": lambda dataset: setattr(
        frames(dataset)[1],
        "PlaneOrientationSequence",
        [Dataset.from_json({"00200037": {"vr": "DS", "Value": [0, 1, 0, 0, 0, 1]}})],
    ),
    "a frame of no segment": lambda dataset: delattr(frames(dataset)[1], "SegmentIdentificationSequence"),
    "a position that is none": lambda dataset: setattr(
        frames(dataset)[0].PlanePositionSequence[0], "ImagePositionPatient", ["1e400", "0", "0"]
    ),
    "two frames of one segment at one place": lambda dataset: setattr(
        frames(dataset)[1], "PlanePositionSequence", frames(dataset)[0].PlanePositionSequence
    ),
}


@pytest.mark.filterwarnings("ignore")  # pydicom's, of the values that are wrong on purpose
@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_told_in_one_line(change: Callable[[Dataset], object], binary: Path) -> None:
    edited(binary, change)
    with pytest.raises(AnnotationError) as caught:
        seg.read(binary, places.place())
    assert str(caught.value).startswith(f"{binary}: ")
    assert "\n" not in str(caught.value)
    assert seg.referenced(binary) == places.SERIES


def test_a_file_cut_off_anywhere_is_an_error_or_no_seg(binary: Path) -> None:
    whole = binary.read_bytes()
    for end in range(0, len(whole), len(whole) // 40):
        binary.write_bytes(whole[:end])
        assert seg.referenced(binary) in (None, "", places.SERIES)
        with pytest.raises(AnnotationError):
            seg.read(binary, places.place())


def test_what_cannot_be_parsed_names_no_series_and_is_told_when_read(binary: Path) -> None:
    content = binary.read_bytes()
    at = content.index(b"\x08\x00\x15\x11SQ")  # ReferencedSeriesSequence, of a type that there is not
    binary.write_bytes(content[: at + 4] + b"\x53\xfa" + content[at + 6 :])
    assert seg.referenced(binary) == ""
    with pytest.raises(AnnotationError):
        seg.read(binary, places.place())


def test_two_voxels_with_one_between_are_two_parts(tmp_path: Path) -> None:
    pixels = np.zeros((8, 40, 48), np.uint8)
    pixels[3, 10, [10, 12]] = 1
    drawing = seg.read(written(tmp_path / "seg.dcm", places.place(), pixels, kinds=(NODULE,)), places.place())
    assert any("2 separate parts" in note for note in drawing.notes)


def test_other_files_are_not_of_this_format(tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_text("not DICOM")
    header = places.headers(places.place())[0]
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.save_as(tmp_path / "ct.dcm", enforce_file_format=True)
    assert seg.referenced(tmp_path / "text.dcm") is None
    assert seg.referenced(tmp_path / "ct.dcm") is None
    assert seg.referenced(tmp_path / "absent.dcm") is None


@pytest.mark.real
def test_the_segmentation_of_lidc_idri_0001_is_read_as_highdicom_reads_it(data: Path) -> None:
    path = data / "ct/LIDC-IDRI-0001_SEG/nodule_seg.dcm"
    dataset = pydicom.dcmread(path)
    z_mm = [float(group.PlanePositionSequence[0].ImagePositionPatient[2]) for group in frames(dataset)]
    where = SeriesPlace(
        uid="1.2.3",
        frame_of_reference_uid=dataset.FrameOfReferenceUID,
        instance_uids=tuple(f"1.2.3.{n}" for n in range(12)),
        geometry=Geometry(shape=(12, 512, 512), spacing_mm=(2.5, 0.703125, 0.703125)),
        origin_lps_mm=(0.0, 0.0, min(z_mm) - 5.0),  # two slices below the lowest frame
    )
    drawing = seg.read(path, where)
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    assert volume.affine[:3, 0].tolist() == [0.0, 0.0, -2.5]  # highdicom counts the slices downwards
    assert np.array_equal(drawing.labels[2:10], volume.array[::-1])
    assert drawing.labels.sum() == 6843
    assert not drawing.labels[:2].any()
    assert not drawing.labels[10:].any()
    assert [(nodule.label, nodule.name) for nodule in drawing.nodules] == [(1, "Nodule")]
    assert seg.referenced(path) == ""  # it names no series, its frame of reference must do
