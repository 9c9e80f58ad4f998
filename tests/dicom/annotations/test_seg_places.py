"""Where the frames of a DICOM SEG land in the series: by position, by source image, from another grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom import Dataset

import places
from seg_files import NODULE, edited, frames, written
from slicestream.dicom.annotations import seg
from slicestream.errors import AnnotationError


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    return written(tmp_path / "seg.dcm", places.place(), places.blobs())


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


def test_a_segment_too_small_for_the_grid_keeps_its_place(tmp_path: Path) -> None:
    fine = places.place((8, 200, 240), spacing_mm=(0.3, 0.1, 0.1))
    pixels = np.zeros(fine.geometry.shape, np.uint8)
    pixels[4, 103, 37] = 1
    drawing = seg.read(written(tmp_path / "seg.dcm", fine, pixels, kinds=(NODULE,)), places.place())
    (nodule,) = drawing.nodules
    assert (nodule.label, nodule.form, drawing.labels.any()) == (0, "point", np.False_)
    assert nodule.centre_lps_mm == pytest.approx((-96.3, -40.2, 31.45))


def test_frames_in_any_order_and_empty_ones_left_out_land_on_their_slices(tmp_path: Path) -> None:
    where, pixels = places.place(), places.blobs()
    path = written(tmp_path / "seg.dcm", where, pixels, form="FRACTIONAL", omit_empty_frames=True)

    def shuffle(dataset: Dataset) -> None:
        order = np.random.default_rng(1).permutation(int(dataset.NumberOfFrames))
        dataset.PixelData = dataset.pixel_array[order].tobytes()
        dataset.PerFrameFunctionalGroupsSequence = [frames(dataset)[n] for n in order]

    assert np.array_equal(seg.read(edited(path, shuffle), where).labels, pixels)


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


def test_missing_frames_between_stay_empty(tmp_path: Path) -> None:
    where = places.place()
    pixels = np.zeros(where.geometry.shape, np.uint8)
    pixels[[1, 3, 5], 10:14, 20:26] = 1
    drawing = seg.read(written(tmp_path / "seg.dcm", where, pixels, kinds=(NODULE,)), where)
    assert np.flatnonzero(drawing.labels.any(axis=(1, 2))).tolist() == [1, 3, 5]
    assert any("3 separate parts" in note for note in drawing.notes)


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
