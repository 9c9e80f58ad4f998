"""The phantom cohort: valid DICOM, the same bytes for the same seed, and a truth that masks agree with."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from ct_files import read_rows
from output_cases import dciodvfy
from slicestream.__main__ import main


def phantom(out: Path, seed: int) -> dict[str, bytes]:
    assert main(["phantom", "--patients", "2", "--matrix", "64", "--seed", str(seed), "--out", str(out)]) == 0
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def truth_of(cohort: Path) -> list[dict[str, str]]:
    with (cohort / "truth.csv").open() as text:
        return list(csv.DictReader(text))


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    first, again, other = phantom(tmp_path / "a", 1), phantom(tmp_path / "b", 1), phantom(tmp_path / "c", 2)
    assert first == again
    image = "images/patient_0001/exam_1/0001_1_0001.dcm"
    assert first[image] != other[image]
    assert not [name for name in first if Path(name).name.startswith(".")]


def test_every_image_is_in_the_table_and_every_mask_is_0_or_255(cohort: Path) -> None:
    rows = read_rows(cohort)
    assert {row["image"] for row in rows} == {str(p.relative_to(cohort)) for p in cohort.rglob("*.dcm")}
    assert {row["mask"] for row in rows} - {""} == {str(p.relative_to(cohort)) for p in cohort.rglob("*_mask.png")}
    for row in rows:
        assert row["image"] == "images/patient_{p}/exam_{e}/{p}_{e}_{s:04d}.dcm".format(
            p=row["patientID"], e=row["exam"], s=int(row["slice"])
        )
        if row["mask"]:
            assert set(np.unique(Image.open(cohort / row["mask"]))) == {0, 255}


def test_one_patient_has_two_studies_with_grown_nodules(cohort: Path) -> None:
    exams = {(row["patientID"], row["exam"]) for row in read_rows(cohort)}
    assert len(exams) == 7
    first, second = ([r for r in truth_of(cohort) if r["patientID"] == "0002" and r["exam"] == e] for e in "12")
    assert len(first) == len(second) > 0
    for before, after in zip(first, second, strict=True):
        assert float(after["diameter_mm"]) > float(before["diameter_mm"])
        assert after["x_mm"] == before["x_mm"]


def test_the_truth_is_a_ball_of_its_diameter(cohort: Path) -> None:
    for row in truth_of(cohort):
        assert float(row["volume_mm3"]) == pytest.approx(np.pi / 6 * float(row["diameter_mm"]) ** 3, rel=1e-3)


def test_masks_lie_where_the_truth_says_in_patient_coordinates(cohort: Path) -> None:
    rows = read_rows(cohort)
    for nodule in truth_of(cohort):
        centre = np.array([float(nodule[name]) for name in ("x_mm", "y_mm", "z_mm")])
        nearest = min(
            (row for row in rows if (row["patientID"], row["exam"]) == (nodule["patientID"], nodule["exam"])),
            key=lambda row: abs(
                float(dcmread(cohort / row["image"], stop_before_pixels=True).SliceLocation) - centre[2]
            ),
        )
        image = dcmread(cohort / nearest["image"], stop_before_pixels=True)
        assert image.SeriesInstanceUID == nodule["series_uid"]
        x0, y0, _ = (float(n) for n in image.ImagePositionPatient)
        column, row = (centre[0] - x0) / image.PixelSpacing[1], (centre[1] - y0) / image.PixelSpacing[0]
        mask = np.asarray(Image.open(cohort / nearest["mask"]))
        assert mask[round(row), round(column)] == 255


def test_scanners_differ_in_how_they_store_hu(cohort: Path) -> None:
    first = [dcmread(path) for path in sorted(cohort.glob("images/*/exam_1/*_1_0001.dcm"))]
    assert len({image.file_meta.TransferSyntaxUID for image in first}) == 6
    assert {image.PixelRepresentation for image in first} == {0, 1}
    assert {image.BitsStored for image in first} == {12, 16}
    assert len({(image.RescaleSlope, image.RescaleIntercept) for image in first}) >= 4
    padded = [image for image in first if "PixelPaddingValue" in image]
    assert {image.PixelPaddingValue for image in padded} == {-2000, -8192}
    for image in padded:
        assert image.pixel_array[0, 0] == image.PixelPaddingValue
    # two of them number their slices from the head down
    assert any(float(image.SliceLocation) > 0 for image in first)
    assert any(float(image.SliceLocation) < 0 for image in first)


def test_dciodvfy_finds_no_error_in_any_habit(cohort: Path, tmp_path: Path) -> None:
    for path in sorted(cohort.glob("images/*/exam_1/*_1_0001.dcm")):
        image = dcmread(path)
        if image.file_meta.TransferSyntaxUID.is_deflated:  # which dciodvfy cannot read
            image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.save_as(tmp_path / path.name)
        said = dciodvfy(tmp_path / path.name)
        assert "CTImage" in said
        assert "Error" not in said, (image.ManufacturerModelName, said)


def test_a_folder_with_a_cohort_is_refused(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phantom", "--out", str(cohort)]) == 2
    assert "already holds images, masks, dataset.csv" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--patients", "0"], ["--seed", "-1"], ["--matrix", "8"]])
def test_a_bad_option_is_one_line(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phantom", *options, "--out", str(tmp_path / "out")]) == 2
    assert f"{options[0]} {options[1]}: need" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
