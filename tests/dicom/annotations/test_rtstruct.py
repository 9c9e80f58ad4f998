from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from rt_utils import RTStruct
from rt_utils.ds_helper import create_rtstruct_dataset

import places
from slicestream.dicom.annotations import rtstruct
from slicestream.dicom.annotations.drawing import SeriesPlace
from slicestream.errors import AnnotationError

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
CENTRE = np.array([3.0, 20.3, 24.6])  # slice, row, column


SQUARE_MM = (2.5, 0.7, 0.7)  # rt-utils 1.2.7 takes row for column spacing, so that other pixels come out stretched


def by_rt_utils(path: Path, where: SeriesPlace, masks: dict[str, np.ndarray], **options: bool) -> Path:
    """Write an RTSTRUCT of masks (slice, row, column) with rt-utils."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        headers = places.headers(where)
        made = RTStruct(headers, create_rtstruct_dataset(headers))
        for name, mask in masks.items():
            made.add_roi(mask=np.moveaxis(mask, 0, 2), name=name, **options)
        made.save(str(path))
    return path


def item(**values: object) -> Dataset:
    found = Dataset()
    for name, value in values.items():
        setattr(found, name, value)
    return found


def contour(where: SeriesPlace, index: np.ndarray, kind: str = "CLOSED_PLANAR") -> Dataset:
    """Return a contour through indices (point, (slice, row, column)), in mm to 2 decimals as planning systems write."""
    points = where.geometry.offset_lps_mm(np.asarray(index, float)) + np.array(where.origin_lps_mm)
    return item(
        ContourGeometricType=kind,
        NumberOfContourPoints=len(points),
        ContourData=[f"{mm:.2f}" for mm in points.ravel()],
    )


def by_hand(
    path: Path, where: SeriesPlace, structures: dict[str, Sequence[Dataset]], *, series: str | None = None
) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = RTSTRUCT
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.9"
    dataset.Modality = "RTSTRUCT"
    study = item(RTReferencedSeriesSequence=[item(SeriesInstanceUID=series or where.uid)])
    dataset.ReferencedFrameOfReferenceSequence = [
        item(FrameOfReferenceUID=where.frame_of_reference_uid, RTReferencedStudySequence=[study])
    ]
    dataset.StructureSetROISequence = [
        item(ROINumber=n, ROIName=name, ReferencedFrameOfReferenceUID=where.frame_of_reference_uid)
        for n, name in enumerate(structures, start=1)
    ]
    dataset.ROIContourSequence = [
        item(ReferencedROINumber=n, ContourSequence=list(contours))
        for n, contours in enumerate(structures.values(), start=1)
    ]
    dataset.save_as(path, enforce_file_format=True)
    return path


def circle(
    index: float, radius_mm: float, where: SeriesPlace, centre: np.ndarray = CENTRE, *, points: int = 500
) -> np.ndarray:
    """Return (point, (slice, row, column)) of a circle in mm."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    _, row_mm, column_mm = where.geometry.spacing_mm
    rows = centre[1] + radius_mm / row_mm * np.sin(angle)
    columns = centre[2] + radius_mm / column_mm * np.cos(angle)
    return np.stack((np.full(points, float(index)), rows, columns), axis=1)


def cylinder(radius_mm: float, slices: slice, where: SeriesPlace, centre: np.ndarray = CENTRE) -> np.ndarray:
    """Return the voxels whose centres lie within a cylinder along the slice axis: the known shape."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in where.geometry.shape), indexing="ij"), axis=-1) - centre
    inside = np.hypot(*(grid * np.array(where.geometry.spacing_mm))[..., 1:].transpose(3, 0, 1, 2)) < radius_mm
    inside[: slices.start], inside[slices.stop :] = False, False
    return np.asarray(inside)


def ball(radius_mm: float, where: SeriesPlace) -> np.ndarray:
    centre = where.geometry.offset_lps_mm(CENTRE) + np.array(where.origin_lps_mm)
    return np.asarray(np.linalg.norm(places.points(where) - centre, axis=-1) < radius_mm)


@pytest.mark.parametrize("direction", [places.AXIAL, places.oblique()], ids=["axial", "oblique"])
@pytest.mark.parametrize("approximate", [True, False], ids=["corners", "every point"])
def test_a_ball_written_by_rt_utils_comes_back_voxel_for_voxel(
    approximate: bool, direction: np.ndarray, tmp_path: Path
) -> None:
    where = places.place(spacing_mm=SQUARE_MM, direction=direction)
    known = ball(7.1, where)
    path = by_rt_utils(tmp_path / "rt.dcm", where, {"GTV": known}, approximate_contours=approximate)
    drawing = rtstruct.read(path, where)
    assert places.iou(drawing.labels > 0, known) == 1.0
    assert [(nodule.label, nodule.name) for nodule in drawing.nodules] == [(1, "GTV")]
    assert any("only structure taken: 'GTV'" in note for note in drawing.notes)
    assert rtstruct.referenced(path) == where.uid


def test_holes_islands_and_single_voxels_of_rt_utils_come_back_voxel_for_voxel(tmp_path: Path) -> None:
    where = places.place(spacing_mm=SQUARE_MM)
    known = cylinder(12.0, slice(1, 5), where) & ~cylinder(7.0, slice(1, 5), where) | cylinder(3.0, slice(2, 4), where)
    known[6, 35, 44] = True
    known[6, 3, 3:6] = True
    path = by_rt_utils(tmp_path / "rt.dcm", where, {"ring": known})
    assert places.iou(rtstruct.read(path, where).labels > 0, known) == 1.0


def test_pin_holes_of_rt_utils_lose_the_channel_that_it_cut_and_no_more(tmp_path: Path) -> None:
    where = places.place((4, 160, 160), spacing_mm=SQUARE_MM)
    centre = np.array([1.0, 80.2, 79.7])
    known = cylinder(50.0, slice(0, 3), where, centre) & ~cylinder(20.0, slice(0, 3), where, centre)
    path = by_rt_utils(tmp_path / "rt.dcm", where, {"ring": known}, use_pin_hole=True)
    found = rtstruct.read(path, where).labels > 0
    assert places.iou(found, known) > 0.98
    assert not (found & ~known).any()


def test_random_masks_of_rt_utils_come_back_voxel_for_voxel(tmp_path: Path) -> None:
    where = places.place(spacing_mm=SQUARE_MM, direction=places.oblique())
    known = np.random.default_rng(3).random(where.geometry.shape) < 0.5
    path = by_rt_utils(tmp_path / "rt.dcm", where, {"noise": known})
    assert places.iou(rtstruct.read(path, where).labels > 0, known) == 1.0


@pytest.mark.parametrize("direction", [places.AXIAL, places.oblique()], ids=["axial", "oblique"])
@pytest.mark.parametrize("radius_mm", [3.0, 8.0, 12.5])
def test_circles_drawn_by_hand_enclose_the_known_cylinder(
    radius_mm: float, direction: np.ndarray, tmp_path: Path
) -> None:
    where = places.place(direction=direction)
    path = by_hand(tmp_path / "rt.dcm", where, {"n": [contour(where, circle(k, radius_mm, where)) for k in (2, 3, 4)]})
    found = rtstruct.read(path, where).labels > 0
    assert places.iou(found, cylinder(radius_mm, slice(2, 5), where)) >= 0.98
    assert found.sum() * 0.7 * 0.8 == pytest.approx(3 * np.pi * radius_mm**2, rel=0.05)


@pytest.mark.parametrize("form", ["apart", "XOR", "keyhole"])
def test_a_hole_is_a_hole_however_it_is_written(form: str, tmp_path: Path) -> None:
    where = places.place()
    outer, inner = circle(3, 12.0, where), circle(3, 6.0, where)[::-1]
    keyhole = np.concatenate((outer, outer[:1], inner[-1:], inner, inner[-1:], outer[:1]))
    contours = {
        "apart": [contour(where, outer), contour(where, inner)],
        "XOR": [contour(where, ring, "CLOSEDPLANAR_XOR") for ring in (inner, outer)],
        "keyhole": [contour(where, keyhole)],
    }
    path = by_hand(tmp_path / "rt.dcm", where, {"ring": contours[form]})
    known = cylinder(12.0, slice(3, 4), where) & ~cylinder(6.0, slice(3, 4), where)
    assert places.iou(rtstruct.read(path, where).labels > 0, known) >= 0.98


def test_several_contours_of_a_slice_are_parts_of_one_nodule_and_it_is_said(tmp_path: Path) -> None:
    where = places.place()
    other = np.array([3.0, 8.0, 8.0])
    contours = [contour(where, circle(3, 5.0, where)), contour(where, circle(3, 3.0, where, other))]
    drawing = rtstruct.read(by_hand(tmp_path / "rt.dcm", where, {"n": contours}), where)
    known = cylinder(5.0, slice(3, 4), where) | cylinder(3.0, slice(3, 4), where, other)
    assert places.iou(drawing.labels == 1, known) >= 0.98
    assert any("2 separate parts" in note for note in drawing.notes)


def test_contours_that_cross_or_stand_there_twice_are_said(tmp_path: Path) -> None:
    where = places.place()
    beside = CENTRE + np.array([0.0, 0.0, 5.0])
    once, twice = contour(where, circle(3, 6.0, where)), contour(where, circle(3, 6.0, where))
    path = by_hand(tmp_path / "rt.dcm", where, {"n": [once, twice, contour(where, circle(3, 6.0, where, beside))]})
    drawing = rtstruct.read(path, where)
    a, b = cylinder(6.0, slice(3, 4), where), cylinder(6.0, slice(3, 4), where, beside)
    assert places.iou(drawing.labels > 0, a ^ b) >= 0.96
    assert any("1 contours stand there twice" in note for note in drawing.notes)
    assert any("cross on 1 slices" in note for note in drawing.notes)


def test_contours_are_found_within_half_a_slice_distance_and_farther_ones_are_said(tmp_path: Path) -> None:
    where = places.place()
    contours = [contour(where, circle(index, 6.0, where)) for index in (2.3, 2.6, 3.1, 5.0)]
    drawing = rtstruct.read(by_hand(tmp_path / "rt.dcm", where, {"n": contours}), where)
    assert np.flatnonzero(drawing.labels.any(axis=(1, 2))).tolist() == [2, 3, 5]
    assert any("1 contours lie between slices" in note for note in drawing.notes)
    assert any("up to 0.30 of the slice distance" in note for note in drawing.notes)
    assert any("1 slices between its first and last have no contour" in note for note in drawing.notes)


def test_points_become_nodules_without_an_outline(tmp_path: Path) -> None:
    where = places.place()
    index = np.array([[2.0, 10.0, 20.0], [5.0, 30.0, 8.0]])
    path = by_hand(tmp_path / "rt.dcm", where, {"small": [contour(where, point[None], "POINT") for point in index]})
    drawing = rtstruct.read(path, where)
    assert not drawing.labels.any()
    assert [(nodule.label, nodule.form) for nodule in drawing.nodules] == [(0, "point"), (0, "point")]
    assert drawing.nodules[1].centre_lps_mm == pytest.approx((-93.6, -29.5, 42.75))


def test_an_outline_that_encloses_no_centre_keeps_its_place(tmp_path: Path) -> None:
    where = places.place()
    tiny = circle(3, 0.1, where, np.array([3.0, 20.5, 24.5]))
    drawing = rtstruct.read(by_hand(tmp_path / "rt.dcm", where, {"n": [contour(where, tiny)]}), where)
    (nodule,) = drawing.nodules
    assert (nodule.label, nodule.form) == (0, "point")
    assert nodule.centre_lps_mm == pytest.approx((-80.4, -36.15, 37.75), abs=0.01)


def nodules(where: SeriesPlace) -> dict[str, list[Dataset]]:
    return {
        "Nodule 1": [contour(where, circle(2, 6.0, where))],
        "Lung_L": [contour(where, circle(3, 13.0, where))],
        "nodule 2": [contour(where, circle(4, 3.0, where))],
        "Empty": [],
    }


@pytest.mark.parametrize(
    ("structure", "names"),
    [("Lung_L", ["Lung_L"]), ("NODULE*", ["Nodule 1", "nodule 2"]), (r"/\d$/", ["Nodule 1", "nodule 2"])],
    ids=["name", "wildcard", "regular expression"],
)
def test_structures_are_chosen_by_name_or_pattern(structure: str, names: list[str], tmp_path: Path) -> None:
    where = places.place()
    drawing = rtstruct.read(by_hand(tmp_path / "rt.dcm", where, nodules(where)), where, structure=structure)
    assert [nodule.name for nodule in drawing.nodules] == names
    assert any(structure in note for note in drawing.notes)


def test_one_of_several_structures_is_never_taken_silently(tmp_path: Path) -> None:
    where = places.place()
    path = by_hand(tmp_path / "rt.dcm", where, nodules(where))
    with pytest.raises(AnnotationError, match=r"3 structures: 'Nodule 1', 'Lung_L', 'nodule 2'.*--structure"):
        rtstruct.read(path, where)
    for structure in ("tumour", "Empty"):
        with pytest.raises(AnnotationError, match=f"no structure with a contour matches '{structure}'"):
            rtstruct.read(path, where, structure=structure)
    with pytest.raises(AnnotationError, match="not a regular expression"):
        rtstruct.read(path, where, structure="/(/")


def test_where_structures_overlap_the_smaller_has_the_voxel(tmp_path: Path) -> None:
    where = places.place()
    drawn = {"large": [contour(where, circle(3, 12.0, where))], "small": [contour(where, circle(3, 4.0, where))]}
    drawing = rtstruct.read(by_hand(tmp_path / "rt.dcm", where, drawn), where, structure="*")
    small = cylinder(4.0, slice(3, 4), where)
    assert places.iou(drawing.labels == 2, small) >= 0.98
    assert places.iou(drawing.labels == 1, cylinder(12.0, slice(3, 4), where) & ~small) >= 0.98


def test_contours_of_another_orientation_or_place_are_refused(tmp_path: Path) -> None:
    where = places.place()
    sagittal = circle(3, 6.0, where)[:, [2, 1, 0]] * np.array([0.3, 1.0, 0.0]) + np.array([-3.0, 0.0, 20.0])
    with pytest.raises(AnnotationError, match=r"runs over .* slices"):
        rtstruct.read(by_hand(tmp_path / "a.dcm", where, {"n": [contour(where, sagittal)]}), where)
    above = [contour(where, circle(20, 6.0, where))]
    with pytest.raises(AnnotationError, match="0% of the points"):
        rtstruct.read(by_hand(tmp_path / "b.dcm", where, {"n": above}), where)
    point = [contour(where, np.array([[20.0, 1.0, 1.0]]), "POINT")]
    with pytest.raises(AnnotationError, match="a point of 'n' lies outside"):
        rtstruct.read(by_hand(tmp_path / "c.dcm", where, {"n": point}), where)


def test_another_frame_of_reference_is_refused_and_another_series_of_it_said(tmp_path: Path) -> None:
    where = places.place()
    drawn = {"n": [contour(where, circle(3, 6.0, where))]}
    with pytest.raises(AnnotationError, match="frame of reference"):
        rtstruct.read(by_hand(tmp_path / "a.dcm", where, drawn), places.place(frame="1.2.3"))
    drawing = rtstruct.read(by_hand(tmp_path / "b.dcm", where, drawn, series="1.2.99"), where)
    assert any("another series of the same frame" in note for note in drawing.notes)


def first_contour(dataset: Dataset) -> Dataset:
    found = dataset.ROIContourSequence[0].ContourSequence[0]
    assert isinstance(found, Dataset)
    return found


DAMAGE: dict[str, Callable[[Dataset], object]] = {
    "no contours": lambda dataset: delattr(dataset, "ROIContourSequence"),
    "no structures": lambda dataset: delattr(dataset, "StructureSetROISequence"),
    "numbers that are no triples": lambda dataset: setattr(first_contour(dataset), "ContourData", ["1", "2"]),
    "no numbers": lambda dataset: setattr(first_contour(dataset), "ContourData", None),
    "a number beyond all": lambda dataset: setattr(first_contour(dataset), "ContourData", ["1e999", "0", "0"] * 3),
    "a number far away": lambda dataset: setattr(first_contour(dataset), "ContourData", ["1e300", "0", "0"] * 3),
    "an open contour": lambda dataset: setattr(first_contour(dataset), "ContourGeometricType", "OPEN_PLANAR"),
}


@pytest.mark.filterwarnings("ignore")  # pydicom's, of the values that are wrong on purpose
@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_told_in_one_line(change: Callable[[Dataset], object], tmp_path: Path) -> None:
    where = places.place()
    path = by_hand(tmp_path / "rt.dcm", where, {"n": [contour(where, circle(3, 6.0, where))]})
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    with pytest.raises(AnnotationError) as caught:
        rtstruct.read(path, where)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_cut_off_anywhere_is_an_error_or_no_rtstruct(tmp_path: Path) -> None:
    where = places.place()
    path = by_hand(tmp_path / "rt.dcm", where, {"n": [contour(where, circle(3, 6.0, where))]})
    whole = path.read_bytes()
    for end in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:end])
        assert rtstruct.referenced(path) in (None, "", where.uid)
        with pytest.raises(AnnotationError):
            rtstruct.read(path, where)


@pytest.mark.filterwarnings("ignore")  # pydicom's, of the values that are wrong on purpose
def test_names_that_would_break_a_line_or_steer_a_terminal_do_not(tmp_path: Path) -> None:
    where = places.place()
    drawn = {"a\x1b[31m": [contour(where, circle(3, 6.0, where))], "b\x07": [contour(where, circle(3, 6.0, where))]}
    path = by_hand(tmp_path / "rt.dcm", where, drawn)
    with pytest.raises(AnnotationError) as caught:
        rtstruct.read(path, where)
    drawing = rtstruct.read(path, where, structure="a*")
    said = [str(caught.value), *drawing.notes, *(nodule.name for nodule in drawing.nodules)]
    assert all(text.isprintable() for text in said)
    dataset = pydicom.dcmread(path)
    dataset.SOPClassUID = "1.2\n.3"
    dataset.save_as(path)
    with pytest.raises(AnnotationError) as caught:
        rtstruct.read(path, where)
    assert str(caught.value).isprintable()
