"""Series of every form to volumes: positions, copies, phases, frames, rescale, against known answers and SimpleITK."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

import output_cases as cases
from ct_files import ROOT, SIZE, change, ct_series, ct_slice, enhanced_ct, unitochest
from slicestream.__main__ import main
from slicestream.dicom.identity import read_identities
from slicestream.dicom.segmentation import write_segmentation
from slicestream.dicom.series import Series, read_series
from slicestream.dicom.study import find_cohort
from slicestream.errors import SeriesError
from slicestream.volumes.mask import Candidate, Mask
from slicestream.volumes.volume import Volume, read_volume


def preprocess(cohort: Path, out: Path) -> list[Volume]:
    """Return the volumes by number of slices, then by mean HU."""
    key = out.parent / "key"
    key.write_text("a secret of the tests only\n")
    assert main(["preprocess", "--cohort", str(cohort), "--pseudonym-key", str(key), "--out", str(out)]) == 0
    volumes = [read_volume(path) for path in out.glob("*.volume")]
    return sorted(volumes, key=lambda volume: (len(volume.hu), volume.hu.mean()))


def manifest(out: Path) -> list[dict[str, Any]]:
    return list(json.loads((out / "manifest-1of1.json").read_text())["entries"])


def headers(out: Path, volume: Volume) -> list[pydicom.Dataset]:
    return read_identities(out.glob("*.identity"))[str(volume.id)]


def filled(stored: int) -> bytes:
    return np.full((SIZE, SIZE), stored, "<u2").tobytes()


# --- planes: an asymmetric object in patient space --------------------------------------------------------------------

AXES = {
    "axial": ((1, 0, 0), (0, 1, 0)),
    "axial, prone": ((-1, 0, 0), (0, -1, 0)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "oblique": ((0.8, 0.6, 0), (-0.36, 0.48, 0.8)),
}
PLACE_MM = np.array([4.0, -7.0, 11.0])  # of a blob, LPS; the object is a ramp along each axis with the blob on it


def object_hu(places_mm: np.ndarray) -> np.ndarray:
    """Return the HU of the object at places in LPS (..., 3): no two axes and no two directions look the same."""
    ramp = places_mm @ np.array([3.0, 11.0, 29.0])
    blob = np.linalg.norm(places_mm - PLACE_MM, axis=-1) < 3.0
    return np.rint(ramp + 900 * blob).astype(np.int64)


def draw(folder: Path, column: np.ndarray, row: np.ndarray) -> None:
    """Write 24 slices of 32 x 28 pixels around the origin, in no order of names or instance numbers."""
    folder.mkdir(parents=True)
    normal, spacing, size = np.cross(column, row), np.array([1.5, 1.0, 1.25]), np.array([24, 32, 28])
    names = np.random.default_rng(0).permutation(len(range(size[0])))
    for k in range(size[0]):
        first = normal * (k - 11.5) * spacing[0] - row * 15.5 * spacing[1] - column * 13.5 * spacing[2]
        y, x = np.meshgrid(np.arange(size[1]), np.arange(size[2]), indexing="ij")
        places = first + y[..., None] * row * spacing[1] + x[..., None] * column * spacing[2]
        ct_slice(
            folder / f"{names[k]}.dcm",
            z_mm=k,
            Rows=int(size[1]),
            Columns=int(size[2]),
            InstanceNumber=int(names[-k]),
            PixelSpacing=["1", "1.25"],
            ImagePositionPatient=[f"{n:.6f}" for n in first],
            ImageOrientationPatient=[f"{n:.6f}" for n in (*column, *row)],
            PixelData=(object_hu(places) + 1024).astype("<u2").tobytes(),
        )


@pytest.mark.parametrize("plane", AXES)
def test_an_asymmetric_object_lies_where_simpleitk_puts_it(plane: str, tmp_path: Path) -> None:
    column, row = (np.array(axis, float) for axis in AXES[plane])
    draw(tmp_path / "cohort", column, row)
    (volume,) = preprocess(tmp_path / "cohort", tmp_path / "out")
    origin = np.array([float(n) for n in headers(tmp_path / "out", volume)[0].ImagePositionPatient])
    index = np.stack(np.indices(volume.hu.shape), axis=-1).astype(float)
    places = origin + volume.geometry.offset_lps_mm(index)
    assert np.abs(volume.hu - object_hu(places)).max() <= 1  # the last digit of the positions
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "cohort")))
    image = reader.Execute()
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), volume.hu)
    assert np.allclose(image.GetOrigin(), origin, atol=1e-4)
    assert np.allclose(image.GetSpacing()[::-1], volume.geometry.spacing_mm, atol=1e-4)
    directions = np.array(image.GetDirection()).reshape(3, 3).T[::-1]
    assert np.allclose(directions, volume.geometry.direction_lps, atol=1e-4)


# --- copies, phases ---------------------------------------------------------------------------------------------------


def test_identical_copies_are_dropped_and_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ct_series(tmp_path / "cohort")
    ct_series(tmp_path / "cohort" / "again", slices=3)
    (volume,) = preprocess(tmp_path / "cohort", tmp_path / "out")
    assert volume.hu.shape == (4, 16, 16)
    assert "identical copies of images, left out: 3" in capsys.readouterr().err
    assert [(e["reason"], e["files"]) for e in manifest(tmp_path / "out") if not e["volume"]] == [("duplicate", 3)]


def test_a_copy_in_another_transfer_syntax_is_a_copy(tmp_path: Path) -> None:
    ct_series(tmp_path / "cohort")
    image = pydicom.dcmread(tmp_path / "cohort" / "1.dcm")
    image.compress(RLELossless, generate_instance_uid=False)
    image.save_as(tmp_path / "cohort" / "copy")
    (volume,) = preprocess(tmp_path / "cohort", tmp_path / "out")
    assert volume.hu.shape == (4, 16, 16)


def test_of_copies_the_one_with_a_mask_is_kept(tmp_path: Path) -> None:
    cohort = unitochest(tmp_path / "cohort", patients=1)
    name = "images/patient_0001/exam_1/a_copy.dcm"
    (cohort / name).write_bytes((cohort / "images/patient_0001/exam_1/0001_1_0001.dcm").read_bytes())
    table = (cohort / "dataset.csv").read_text().splitlines()
    (cohort / "dataset.csv").write_text("\n".join([table[0], f"0001,1,9,{name},", *table[1:]]) + "\n")
    preprocess(cohort, tmp_path / "out")
    (entry,) = json.loads((tmp_path / "out" / "series-1of1.json").read_text())["series"]
    assert (entry["slices"], entry["annotated_slices"]) == (4, 2)


def test_equal_images_of_different_uids_at_a_position_are_one(tmp_path: Path) -> None:
    ct_series(tmp_path / "cohort")
    ct_slice(tmp_path / "cohort" / "again", z_mm=2.5, SOPInstanceUID=f"{ROOT}.77")
    (volume,) = preprocess(tmp_path / "cohort", tmp_path / "out")
    assert volume.hu.shape == (4, 16, 16)


PHASES: dict[str, tuple[Any, Any]] = {
    "AcquisitionNumber": (1, 2),
    "TemporalPositionIdentifier": (1, 2),
    "TriggerTime": ("0", "350"),
    "AcquisitionTime": ("100000", "100130"),
    "ConvolutionKernel": ("B30f", "B70f"),
    "KVP": ("80", "140"),
    "ImageType": (["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "SECONDARY", "AXIAL"]),
}


@pytest.mark.parametrize("name", PHASES)
def test_two_images_at_each_position_are_two_volumes_where_an_element_parts_them(name: str, tmp_path: Path) -> None:
    for phase, value in enumerate(PHASES[name]):
        for k in range(3):
            ct_slice(
                tmp_path / "cohort" / f"{k}{phase}",
                z_mm=2.5 * k,
                SOPInstanceUID=f"{ROOT}.{phase + 5}.{k}",
                PixelData=filled(1000 + 10 * k + 100 * phase),
                InstanceNumber=k,
                **{name: value},
            )
    first, second = preprocess(tmp_path / "cohort", tmp_path / "out")
    assert first.hu[:, 0, 0].tolist() == [-24, -14, -4]
    assert second.hu[:, 0, 0].tolist() == [76, 86, 96]
    assert first.id.patient == second.id.patient
    assert first.id.series != second.id.series


def test_a_copy_within_one_of_two_phases_and_an_equal_slice_of_both_are_kept_apart(tmp_path: Path) -> None:
    for phase in (0, 1):
        for k in range(3):
            ct_slice(
                tmp_path / "cohort" / f"{k}{phase}",
                z_mm=2.5 * k,
                SOPInstanceUID=f"{ROOT}.{phase + 5}.{k}",
                AcquisitionNumber=phase + 1,
                PixelData=filled(500 if k == 1 else 1000 + phase),  # slice 1 shows the same in both
            )
    (tmp_path / "cohort" / "copy").write_bytes((tmp_path / "cohort" / "00").read_bytes())
    volumes = preprocess(tmp_path / "cohort", tmp_path / "out")
    assert [volume.hu[:, 0, 0].tolist() for volume in volumes] == [[-24, -524, -24], [-23, -524, -23]]


def test_phases_of_unequal_length_are_volumes_of_their_own_length(tmp_path: Path) -> None:
    for phase, slices in enumerate((3, 5)):
        for k in range(slices):
            uid = f"{ROOT}.{phase + 5}.{k}"
            path = tmp_path / "cohort" / f"{k}{phase}"
            stored = filled(1000 + 100 * phase)
            ct_slice(path, z_mm=2.5 * k, SOPInstanceUID=uid, AcquisitionNumber=phase, PixelData=stored)
    assert [len(volume.hu) for volume in preprocess(tmp_path / "cohort", tmp_path / "out")] == [3, 5]


# --- rescale, and pixels of all kinds ---------------------------------------------------------------------------------


def test_rescale_is_that_of_each_slice(tmp_path: Path) -> None:
    for k, (slope, intercept) in enumerate((("1", "-1024"), ("0.5", "-1000"), ("2", "0"))):
        path = tmp_path / "cohort" / f"{k}"
        ct_slice(path, z_mm=k, RescaleSlope=slope, RescaleIntercept=intercept, PixelData=filled(100))
    (volume,) = preprocess(tmp_path / "cohort", tmp_path / "out")
    assert volume.hu[:, 0, 0].tolist() == [-924, -950, 200]


def test_reading_a_series_takes_the_memory_of_a_few_slices(tmp_path: Path) -> None:
    slices, side = 40, 512
    for k in range(slices):
        pixels = np.full((side, side), k, "<u2").tobytes()
        ct_slice(tmp_path / f"{k}", z_mm=k, Rows=side, Columns=side, PixelData=pixels)
    (batch,) = find_cohort(tmp_path).patients[0].batches
    tracemalloc.start()
    (series,) = read_series(batch)
    assert isinstance(series, Series)
    corners = [int(hu[0, 0]) for hu in series.hu]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert corners == [k - 1024 for k in range(slices)]
    assert peak < 6 * side * side * 8 + slices * 50_000 < slices * side * side * 2


@pytest.mark.parametrize("at_once", [1, 2])
def test_slices_decoded_side_by_side_come_in_order_and_a_damaged_one_in_its_turn(tmp_path: Path, at_once: int) -> None:
    slices = 70  # enough for two decoders
    for k in range(slices):
        path = ct_slice(tmp_path / f"{k}", z_mm=k, PixelData=filled(k))
        image = pydicom.dcmread(path)
        image.compress(JPEGLSLossless, generate_instance_uid=False)
        if k == 50:
            image.PixelData = encapsulate([b"\xff\xd8 no more than that"])
        image.save_as(path)
    (batch,) = find_cohort(tmp_path).patients[0].batches
    (series,) = read_series(batch, at_once=at_once)
    assert isinstance(series, Series)
    voxels = iter(series.hu)
    before = next(voxels)
    for k in range(1, 50):
        hu = next(voxels)
        assert (int(before[0, 0]), int(hu[0, 0])) == (k - 1 - 1024, k - 1024)
        before = hu
    with pytest.raises(SeriesError, match=r"50: pixels cannot be decoded"):
        next(voxels)


def test_a_transfer_syntax_of_several_values_is_one_line(tmp_path: Path) -> None:
    for k in range(70):  # enough for two decoders
        path = ct_slice(tmp_path / f"{k:02}", z_mm=k)
        plain = b"1.2.840.10008.1.2.1\0"
        path.write_bytes(path.read_bytes().replace(plain, b"1.2.840\\10008.1.2.1\0", 1))
    (batch,) = find_cohort(tmp_path).patients[0].batches
    (series,) = read_series(batch, at_once=2)
    assert isinstance(series, Series)
    with pytest.raises(SeriesError, match=r"00: no transfer syntax in its header"):
        series.hu.whole()


def test_looking_at_a_series_grows_no_faster_than_its_length(tmp_path: Path) -> None:
    spent = []
    for slices in (100, 400):
        for k in range(slices):
            ct_slice(tmp_path / f"{slices}" / f"{k}", z_mm=k)
        began = time.process_time()
        (batch,) = find_cohort(tmp_path / f"{slices}").patients[0].batches
        (series,) = read_series(batch)
        spent.append(time.process_time() - began)
        assert isinstance(series, Series)
        assert series.geometry.shape[0] == slices
    assert spent[1] < 8 * spent[0]  # four times as many; quadratic would be sixteen


def test_pixels_of_an_unknown_value_representation_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ct_slice(tmp_path / "cohort" / "0", z_mm=0)
    path.write_bytes(path.read_bytes().replace(b"\xe0\x7f\x10\x00OW", b"\xe0\x7f\x10\x00ZZ"))
    with pytest.raises(AssertionError):
        preprocess(tmp_path / "cohort", tmp_path / "out")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "0: PixelData cannot be read" in said


# --- multi-frame ------------------------------------------------------------------------------------------------------

SHUFFLED_MM = [5.0, 0.0, 7.5, 2.5]
IN_ORDER_HU = [-801, -603, -900, -702]  # frames 1, 3, 0, 2 of HU 99 k - 900


@pytest.mark.parametrize(
    "syntax",
    [None, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEGLSLossless],
)
def test_frames_of_an_enhanced_ct_are_sorted_by_position_with_their_own_rescale(syntax: Any, tmp_path: Path) -> None:
    path = enhanced_ct(tmp_path / "cohort" / "e", SHUFFLED_MM)
    image = pydicom.dcmread(path)
    if syntax in (RLELossless, JPEGLSLossless):
        image.compress(syntax, generate_instance_uid=False)
    elif syntax:
        image.file_meta.TransferSyntaxUID = syntax
    image.save_as(path, enforce_file_format=True)
    (volume,) = preprocess(tmp_path / "cohort", tmp_path / "out")
    assert volume.hu[:, 3, 5].tolist() == IN_ORDER_HU
    assert volume.geometry.spacing_mm == (2.5, 0.7, 0.7)
    assert [header.ReferencedFrameNumber for header in headers(tmp_path / "out", volume)] == [2, 4, 1, 3]
    assert [entry["files"] for entry in manifest(tmp_path / "out")] == [1]


def test_an_enhanced_ct_in_big_endian_is_read(tmp_path: Path) -> None:
    path = enhanced_ct(tmp_path / "cohort" / "e", SHUFFLED_MM)
    image = pydicom.dcmread(path)
    pixels = np.frombuffer(image.PixelData, "<u2").astype(">u2")
    image.PixelData = pixels.tobytes()
    image.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(path, image, implicit_vr=False, little_endian=False, force_encoding=True)
    (volume,) = preprocess(tmp_path / "cohort", tmp_path / "out")
    assert volume.hu[:, 0, 0].tolist() == IN_ORDER_HU


def test_a_series_in_big_endian_is_read_and_its_headers_are_kept(tmp_path: Path) -> None:
    for k, path in enumerate(ct_series(tmp_path / "cohort")):
        image = pydicom.dcmread(path)
        image.PixelData = np.full(SIZE * SIZE, 1000 + k, ">u2").tobytes()
        image.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        pydicom.dcmwrite(path, image, implicit_vr=False, little_endian=False, force_encoding=True)
    (volume,) = preprocess(tmp_path / "cohort", tmp_path / "out")
    assert volume.hu[:, 0, 0].tolist() == [-24, -23, -22, -21]
    kept = headers(tmp_path / "out", volume)
    assert [(header.Rows, float(header.ImagePositionPatient[2])) for header in kept] == [
        (16, 2.5 * k) for k in range(4)
    ]


def test_an_enhanced_ct_in_two_files_is_one_volume(tmp_path: Path) -> None:
    enhanced_ct(tmp_path / "cohort" / "a", [0, 5.0])
    enhanced_ct(tmp_path / "cohort" / "b", [2.5, 7.5], SOPInstanceUID=f"{ROOT}.55")
    (volume,) = preprocess(tmp_path / "cohort", tmp_path / "out")
    assert volume.hu[:, 0, 0].tolist() == [-900, -900, -801, -801]
    assert [header.SOPInstanceUID == f"{ROOT}.55" for header in headers(tmp_path / "out", volume)] == [0, 1, 0, 1]


def test_frames_of_two_phases_are_two_volumes(tmp_path: Path) -> None:
    path = enhanced_ct(tmp_path / "cohort" / "e", [0, 0, 2.5, 2.5, 5, 5])
    image = pydicom.dcmread(path)
    for k, groups in enumerate(image.PerFrameFunctionalGroupsSequence):
        groups.FrameContentSequence[0].TemporalPositionIndex = k % 2 + 1
    image.save_as(path)
    first, second = preprocess(tmp_path / "cohort", tmp_path / "out")
    assert first.hu[:, 0, 0].tolist() == [-900, -702, -504]
    assert second.hu[:, 0, 0].tolist() == [-801, -603, -405]


def test_a_seg_of_an_enhanced_ct_refers_to_its_frames_and_lies_on_them(tmp_path: Path) -> None:
    enhanced_ct(tmp_path / "cohort" / "e", SHUFFLED_MM, StudyDate="20200101", StudyTime="120000", SeriesNumber=1)
    (volume,) = preprocess(tmp_path / "cohort", tmp_path / "out")
    labels = np.zeros(volume.hu.shape, np.uint16)
    labels[1, 2:5, 7:9] = labels[2, 3, 7] = 1
    mask = Mask(
        kind="mask",
        id=volume.id,
        labels=labels,
        geometry=volume.geometry,
        volume_hash=volume.content_hash,
        model_hash=cases.MODEL_HASH,
        candidates=(Candidate(label=1, score=0.5, voxels=7),),
    )
    path = tmp_path / "seg.dcm"
    write_segmentation(path, mask, headers(tmp_path / "out", volume))
    written, source = pydicom.dcmread(path), pydicom.dcmread(tmp_path / "cohort" / "e")
    found = {}
    for frame, groups in zip(written.pixel_array, written.PerFrameFunctionalGroupsSequence, strict=True):
        (image,) = groups.DerivationImageSequence[0].SourceImageSequence
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert image.ReferencedSOPClassUID == source.SOPClassUID
        place = source.PerFrameFunctionalGroupsSequence[image.ReferencedFrameNumber - 1].PlanePositionSequence[0]
        assert groups.PlanePositionSequence[0].ImagePositionPatient == place.ImagePositionPatient
        found[int(image.ReferencedFrameNumber)] = int(frame.sum())
    assert found == {4: 6, 1: 1}  # z = 2.5 mm and 5 mm
    (series,) = written.ReferencedSeriesSequence
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence] == [source.SOPInstanceUID]
    segmentation = highdicom.seg.segread(path)
    stacked = segmentation.get_pixels_by_source_frame(
        source.SOPInstanceUID, [2, 4, 1, 3], combine_segments=True, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(stacked > 0, labels > 0)
    assert "Error" not in cases.dciodvfy(path)


# --- tilt -------------------------------------------------------------------------------------------------------------


def test_a_tilt_below_half_a_pixel_is_no_tilt(tmp_path: Path) -> None:
    ct_series(tmp_path / "cohort")
    change(tmp_path / "cohort" / "3.dcm", ImagePositionPatient=["0", "0.3", "7.5"])
    (volume,) = preprocess(tmp_path / "cohort", tmp_path / "out")
    assert volume.hu.shape == (4, 16, 16)


def test_a_tilt_is_told_in_degrees_and_an_uneven_shift_apart_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, shifts in (("even", (0, 1, 2, 3)), ("uneven", (0, 3, 0, 3))):
        for k, shift in enumerate(shifts):
            place = ["0", f"{shift}", f"{2.5 * k}"]
            ct_slice(tmp_path / name / f"{k}", z_mm=2.5 * k, ImagePositionPatient=place)
        with pytest.raises(AssertionError):
            preprocess(tmp_path / name, tmp_path / "out")
    said = capsys.readouterr().err
    assert "up to 3.0 mm sideways (gantry tilt of 21.8 degrees)" in said  # atan(1 / 2.5)
    assert "up to 3.0 mm sideways (not evenly)" in said
