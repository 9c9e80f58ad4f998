"""preprocess on cohorts whose voxels, geometry and nodules are known."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread

from ct_files import change, ct_series, ct_slice, read_rows, unitochest, write_mask_png, write_table
from slicestream.__main__ import main
from slicestream.dicom.identity import read_identities
from slicestream.volumes.mask import read_mask
from slicestream.volumes.slices import read_slices
from slicestream.volumes.volume import Volume, read_volume

KEY = "a secret of the tests only\n"


def preprocess(cohort: Path, out: Path, *options: str) -> None:
    key = out.parent / "key"
    key.write_text(KEY)
    arguments = ["--cohort", str(cohort), "--pseudonym-key", str(key), "--out", str(out), *options]
    assert main(["preprocess", *arguments]) == 0


def only_volume(out: Path) -> Volume:
    (path,) = out.glob("*.volume")
    return read_volume(path)


def series_index(out: Path) -> list[dict[str, object]]:
    (path,) = out.glob("series-*.json")
    return list(json.loads(path.read_text())["series"])


def test_slices_are_ordered_by_position_not_by_name(tmp_path: Path) -> None:
    for name, z_mm, stored in (("a", 5.0, 300), ("b", 0.0, 100), ("c", 2.5, 200)):
        pixels = np.full((16, 16), stored, "<u2").tobytes()
        ct_slice(tmp_path / "cohort" / f"{name}.dcm", z_mm=z_mm, PixelData=pixels)
    preprocess(tmp_path / "cohort", tmp_path / "out")
    volume = only_volume(tmp_path / "out")
    assert volume.hu[:, 0, 0].tolist() == [-924, -824, -724]
    assert volume.geometry.spacing_mm == (2.5, 0.7, 0.7)


def test_a_head_first_prone_stack_keeps_its_axes(tmp_path: Path) -> None:
    ct_series(tmp_path / "cohort", ImageOrientationPatient=["-1", "0", "0", "0", "1", "0"])
    preprocess(tmp_path / "cohort", tmp_path / "out")
    assert only_volume(tmp_path / "out").geometry.direction_lps == ((0, 0, -1), (0, 1, 0), (-1, 0, 0))


def test_spacing_comes_from_positions_not_from_thickness(tmp_path: Path) -> None:
    ct_series(tmp_path / "cohort", SliceThickness="5")
    preprocess(tmp_path / "cohort", tmp_path / "out")
    assert only_volume(tmp_path / "out").geometry.spacing_mm[0] == 2.5


def test_a_single_slice_has_the_spacing_of_its_thickness(tmp_path: Path) -> None:
    ct_series(tmp_path / "cohort", slices=1, SliceThickness="4")
    preprocess(tmp_path / "cohort", tmp_path / "out")
    assert only_volume(tmp_path / "out").geometry.spacing_mm[0] == 4.0


def test_positions_rounded_by_the_scanner_are_one_spacing(tmp_path: Path) -> None:
    for k in range(20):
        ct_slice(tmp_path / "cohort" / f"{k}.dcm", z_mm=round(0.625 * k, 1))
    preprocess(tmp_path / "cohort", tmp_path / "out")
    assert only_volume(tmp_path / "out").geometry.spacing_mm[0] == pytest.approx(0.625, abs=0.005)


def test_two_series_in_one_folder_are_two_volumes(tmp_path: Path) -> None:
    ct_series(tmp_path / "cohort" / "any" / "depth", slices=3)
    for k in range(2):
        ct_slice(tmp_path / "cohort" / "any" / "depth" / f"other{k}.dcm", z_mm=2.5 * k, series=2)
    preprocess(tmp_path / "cohort", tmp_path / "out")
    assert sorted(int(str(entry["slices"])) for entry in series_index(tmp_path / "out")) == [2, 3]


def test_a_seg_and_a_localizer_beside_the_ct_are_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ct_series(tmp_path / "cohort")
    ct_slice(tmp_path / "cohort" / "seg.dcm", z_mm=0, series=2, Modality="SEG")
    ct_slice(tmp_path / "cohort" / "scout.dcm", z_mm=0, series=3, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (tmp_path / "cohort" / "README.txt").write_text("hello")
    preprocess(tmp_path / "cohort", tmp_path / "out")
    said = capsys.readouterr().err
    assert "set aside: 1 SEG, 1 localizer, 1 not DICOM" in said
    assert only_volume(tmp_path / "out").hu.shape == (4, 16, 16)


def test_a_plain_folder_gives_volumes_and_no_training_slices(tmp_path: Path) -> None:
    ct_series(tmp_path / "cohort")
    preprocess(tmp_path / "cohort", tmp_path / "out")
    assert read_slices(tmp_path / "out" / "training-1of1.slices") == []
    assert [entry["reference"] for entry in series_index(tmp_path / "out")] == [None]


def test_every_mask_is_trained_on_and_a_share_of_the_rest(tmp_path: Path) -> None:
    unitochest(tmp_path / "cohort", patients=3, slices=60, marked=5)
    for share, low, high in (("0", 0, 0), ("0.2", 15, 55), ("1", 165, 165)):
        preprocess(tmp_path / "cohort", tmp_path / share, "--negatives", share)
        stacks = read_slices(tmp_path / share / "training-1of1.slices")
        drawn = sum(int(stack.nodule.any(axis=(1, 2)).sum()) for stack in stacks)
        assert drawn == 15
        assert low <= sum(len(stack.hu) for stack in stacks) - drawn <= high
        for stack in stacks:
            volume = read_volume(tmp_path / share / f"{stack.id}.volume")
            assert np.array_equal(volume.hu[stack.numbers], stack.hu)


def test_backgrounds_are_trained_on_and_nothing_else_is_made_of_them(tmp_path: Path) -> None:
    unitochest(tmp_path / "cohort", patients=2)
    ct_series(tmp_path / "healthy", slices=3, patient="H", series=77)
    out = tmp_path / "out"
    preprocess(tmp_path / "cohort", out, "--negatives", "0", "--backgrounds", str(tmp_path / "healthy"))
    assert len(list(out.glob("*.volume"))) == len(list(out.glob("*.reference"))) == len(series_index(out)) == 2
    (entry,) = json.loads((out / "series-1of1.json").read_text())["backgrounds"]
    (stack,) = [s for s in read_slices(out / "training-1of1.slices") if s.id.patient == entry["patient"]]
    assert entry["training_slices"] == len(stack.hu) == 3
    assert not stack.nodule.any()


def test_backgrounds_keep_their_masks_and_come_with_the_first_share_only(tmp_path: Path) -> None:
    unitochest(tmp_path / "cohort", patients=3)
    unitochest(tmp_path / "more", patients=1)
    for path in (tmp_path / "more").rglob("*.dcm"):
        change(path, PatientID="H")
    for share, drawn in (("1/2", True), ("2/2", False)):
        out = tmp_path / share[0]
        preprocess(tmp_path / "cohort", out, "--share", share, "--backgrounds", str(tmp_path / "more"))
        index = json.loads(next(out.glob("series-*.json")).read_text())
        assert ("backgrounds" in index) == drawn
        stacks = read_slices(next(out.glob("*.slices")))
        assert len(stacks) == len(index["series"]) + drawn
        assert all(stack.nodule.any() for stack in stacks)


def test_slices_of_thin_backgrounds_are_taken_about_2_5_mm_apart(tmp_path: Path) -> None:
    unitochest(tmp_path / "cohort", patients=1)
    for k in range(20):
        ct_slice(tmp_path / "thin" / f"{k}.dcm", z_mm=0.5 * k, patient="H", series=77)
    preprocess(tmp_path / "cohort", tmp_path / "out", "--backgrounds", str(tmp_path / "thin"))
    (entry,) = json.loads((tmp_path / "out" / "series-1of1.json").read_text())["backgrounds"]
    assert entry["training_slices"] == 4
    (stack,) = [s for s in read_slices(tmp_path / "out" / "training-1of1.slices") if s.id.patient == entry["patient"]]
    assert stack.numbers.tolist() == [2, 7, 12, 17]


def test_neighbours_are_packed_on_demand_and_not_trained_on(tmp_path: Path) -> None:
    unitochest(tmp_path / "cohort", patients=2, slices=20, marked=3)
    ct_series(tmp_path / "scan", slices=9, patient="H", series=77)
    backgrounds = ("--backgrounds", str(tmp_path / "scan"), "--negatives", "0")
    for context in ("0", "1", "2"):
        preprocess(tmp_path / "cohort", tmp_path / context, *backgrounds, "--context", context)
    for alone, *more in zip(*(read_slices(tmp_path / c / "training-1of1.slices") for c in "012"), strict=True):
        assert alone.trained.all()
        for context, stack in enumerate(more, start=1):
            assert stack.context == context
            assert stack.numbers[stack.trained].tolist() == alone.numbers.tolist()
            wanted = {k for number in alone.numbers for k in range(number - context, number + context + 1)}
            assert set(stack.numbers.tolist()) == wanted & set(range(20 if alone.nodule.any() else 9))
            assert np.array_equal(stack.hu[stack.trained], alone.hu)
    entries = series_index(tmp_path / "1")
    assert [entry["training_slices"] for entry in entries] == [3, 3]
    volume = read_volume(tmp_path / "1" / str(entries[0]["volume"]))
    (stack,) = [s for s in read_slices(tmp_path / "1" / "training-1of1.slices") if s.id == volume.id]
    assert np.array_equal(stack.hu, volume.hu[stack.numbers])


def test_a_patient_of_the_cohort_is_no_background(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unitochest(tmp_path / "cohort")
    (tmp_path / "key").write_text(KEY)
    arguments = ["--cohort", "cohort", "--backgrounds", "cohort", "--pseudonym-key", "key", "--out", "out"]
    paths = [a if a.startswith("--") else str(tmp_path / a) for a in arguments]
    assert main(["preprocess", *paths]) == 2
    assert "3 of its patients are in the cohort too; need others" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_patient_without_annotation_is_kept_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unitochest(tmp_path / "cohort")
    write_table(
        tmp_path / "cohort",
        [row | ({"mask": ""} if row["patientID"] == "0002" else {}) for row in read_rows(tmp_path / "cohort")],
    )
    preprocess(tmp_path / "cohort", tmp_path / "out")
    entries = series_index(tmp_path / "out")
    (bare,) = [entry for entry in entries if entry["reference"] is None]
    said = capsys.readouterr()
    assert f"patients without an annotated slice, kept for inference only: 1 ({bare['patient']})" in said.err
    assert "3 patients, 3 series, 12 slices, 4 with a mask" in said.out


def test_touching_pixels_are_one_nodule_also_over_corners(tmp_path: Path) -> None:
    cohort = unitochest(tmp_path / "cohort", patients=1, slices=4, marked=2)
    for k, corner in ((1, 0), (2, 2)):
        pixels = np.zeros((16, 16), np.uint8)
        pixels[corner : corner + 2, corner : corner + 2] = 255
        pixels[12:14, 12:14] = 255 * (k == 2)
        write_mask_png(cohort / f"masks/patient_0001/exam_1/0001_1_{k:04d}_mask.png", pixels)
    preprocess(cohort, tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.reference")
    reference = read_mask(path, "reference")
    assert [nodule.voxels for nodule in reference.candidates] == [8, 4]
    assert reference.volume_hash == only_volume(tmp_path / "out").content_hash


def test_shares_hold_whole_patients_and_are_the_whole_together(tmp_path: Path) -> None:
    unitochest(tmp_path / "cohort", patients=5)
    preprocess(tmp_path / "cohort", tmp_path / "all")
    names: list[str] = []
    for share in ("1/2", "2/2"):
        out = tmp_path / share.replace("/", "of")
        preprocess(tmp_path / "cohort", out, "--share", share)
        names += [path.name for path in out.glob("*.volume")]
        for path in out.glob("*.volume"):
            assert path.read_bytes() == (tmp_path / "all" / path.name).read_bytes()
        assert (out / f"preprocess-{out.name}.run.json").exists()
    assert sorted(names) == sorted(path.name for path in (tmp_path / "all").glob("*.volume"))


def test_an_index_lists_its_series_in_the_order_of_file_names(preprocessed: Path) -> None:
    listed = [str(entry["volume"]) for entry in series_index(preprocessed)]
    assert listed == sorted(path.name for path in preprocessed.glob("*.volume"))
    assert len(listed) == 7


def test_two_runs_give_the_same_bytes(cohort: Path, preprocessed: Path, tmp_path: Path) -> None:
    key = str(cohort / "pseudonym_key")
    assert main(["preprocess", "--cohort", str(cohort), "--pseudonym-key", key, "--out", str(tmp_path)]) == 0
    again = sorted(path for path in tmp_path.iterdir() if not path.name.endswith(".run.json"))
    assert len(again) == 18
    for path in again:
        assert path.read_bytes() == (preprocessed / path.name).read_bytes(), path.name


def test_two_exams_of_a_patient_have_one_pseudonym(preprocessed: Path) -> None:
    assert len({entry["patient"] for entry in series_index(preprocessed)}) == 6


def test_another_key_gives_other_pseudonyms(tmp_path: Path) -> None:
    ct_series(tmp_path / "cohort")
    preprocess(tmp_path / "cohort", tmp_path / "one")
    (tmp_path / "other").write_text("another secret of the tests\n")
    arguments = ["--cohort", str(tmp_path / "cohort"), "--pseudonym-key", str(tmp_path / "other")]
    assert main(["preprocess", *arguments, "--out", str(tmp_path / "two")]) == 0
    one, two = only_volume(tmp_path / "one"), only_volume(tmp_path / "two")
    assert one.id.patient != two.id.patient
    assert one.id.series != two.id.series


def test_excluded_patients_are_skipped_and_counted(tmp_path: Path) -> None:
    unitochest(tmp_path / "cohort", patients=4)
    (tmp_path / "list").write_text("P2\n0003\n\n")
    preprocess(tmp_path / "cohort", tmp_path / "out", "--exclude", str(tmp_path / "list"))
    document = json.loads((tmp_path / "out" / "series-1of1.json").read_text())
    assert document["excluded_patients"] == 2
    assert len(document["series"]) == 2


def test_lines_of_the_exclusion_list_that_match_nobody_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unitochest(tmp_path / "listed", patients=2)
    ct_series(tmp_path / "plain")
    (tmp_path / "list").write_text("P2\nP3\nP4\n")
    for cohort, count in (("listed", 2), ("plain", 3)):
        preprocess(tmp_path / cohort, tmp_path / f"out-{cohort}", "--exclude", str(tmp_path / "list"))
        assert f"lines of the exclusion list that match no patient here: {count}" in capsys.readouterr().err


def test_an_empty_mask_is_a_read_slice_without_nodule(tmp_path: Path) -> None:
    cohort = unitochest(tmp_path / "cohort", patients=1, slices=3, marked=1)
    write_mask_png(next(cohort.rglob("*_mask.png")), np.zeros((16, 16), np.uint8))
    preprocess(cohort, tmp_path / "out", "--negatives", "0")
    (entry,) = series_index(tmp_path / "out")
    assert (entry["annotated_slices"], entry["training_slices"]) == (0, 0)
    assert read_mask(tmp_path / "out" / str(entry["reference"]), "reference").candidates == ()


def test_a_table_without_patient_ids_in_dicom_stands_in_for_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = unitochest(tmp_path / "cohort", patients=2)
    for path in cohort.rglob("*.dcm"):
        change(path, PatientID="")
    preprocess(cohort, tmp_path / "out")
    assert "patients without a PatientID in DICOM: 2" in capsys.readouterr().err
    assert len({entry["patient"] for entry in series_index(tmp_path / "out")}) == 2


def test_patients_of_the_table_with_one_patient_id_are_one(tmp_path: Path) -> None:
    cohort = unitochest(tmp_path / "cohort", patients=3)
    for path in (cohort / "images" / "patient_0003").rglob("*.dcm"):
        change(path, PatientID="P1")
    preprocess(cohort, tmp_path / "out")
    assert len({entry["patient"] for entry in series_index(tmp_path / "out")}) == 2


def test_a_missing_patient_id_is_stood_in_for_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ct_series(tmp_path / "cohort", PatientID=None)
    preprocess(tmp_path / "cohort", tmp_path / "out")
    assert "studies without a PatientID: 1" in capsys.readouterr().err
    assert only_volume(tmp_path / "out").hu.shape == (4, 16, 16)


def test_the_dry_run_writes_nothing_and_lists_every_series(
    cohort: Path, preprocessed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    key = str(cohort / "pseudonym_key")
    assert main(["preprocess", "--cohort", str(cohort), "--pseudonym-key", key, "--dry-run", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert not out.exists()
    listed = [line.split()[:3] for line in said.splitlines()]
    for entry in series_index(preprocessed):
        assert [f"{entry['patient']}-{entry['series']}", str(entry["slices"]), "slices"] in listed
    assert "dry run: nothing was written" in said


def test_reference_volumes_are_those_of_the_truth(cohort: Path, preprocessed: Path) -> None:
    with (cohort / "truth.csv").open() as text:
        truth = list(csv.DictReader(text))
    known: dict[str, list[float]] = {}
    for row in truth:
        known.setdefault(row["series_uid"], []).append(float(row["volume_mm3"]))
    errors = []
    identities = read_identities(preprocessed.glob("*.identity"))
    for path in preprocessed.glob("*.reference"):
        reference = read_mask(path, "reference")
        nodules = known[identities[str(reference.id)][0].SeriesInstanceUID]
        volumes = [nodule.voxels * reference.geometry.voxel_mm3 for nodule in reference.candidates]
        assert len(volumes) == len(nodules)
        for measured, real in zip(sorted(volumes), sorted(nodules), strict=True):
            errors.append(abs(measured - real) / real)
    assert np.median(errors) < 0.10


def test_the_run_record_counts_and_names_what_left(preprocessed: Path) -> None:
    record = json.loads((preprocessed / "preprocess-1of1.run.json").read_text())
    assert record["unit"] == "slices"
    assert record["items"] == sum(int(str(entry["slices"])) for entry in series_index(preprocessed))
    assert record["inputs"] == {}
    leaving = {
        p.name for p in preprocessed.iterdir() if not p.name.endswith((".identity", ".run.json", "manifest-1of1.json"))
    }
    assert set(record["outputs"]) == leaving


def check_against_simpleitk(volume: Volume, folder: Path) -> None:
    """SimpleITK (GDCM) is an independent reader: other codecs, its own sorting and rescaling."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    expected = SimpleITK.GetArrayFromImage(image)
    padding = expected < -1900  # not a HU that anything has
    assert np.abs(np.where(padding, -1024, np.maximum(expected, -1024)) - volume.hu).max() <= 0.5
    assert image.GetSpacing()[::-1] == pytest.approx(volume.geometry.spacing_mm, abs=1e-4)


def test_every_scanner_habit_is_read_as_simpleitk_reads_it(cohort: Path, preprocessed: Path) -> None:
    identities = read_identities(preprocessed.glob("*.identity"))
    folders = {dcmread(next(folder.iterdir())).SeriesInstanceUID: folder for folder in cohort.glob("images/*/*")}
    for path in preprocessed.glob("*.volume"):
        volume = read_volume(path)
        check_against_simpleitk(volume, folders[identities[str(volume.id)][0].SeriesInstanceUID])


@pytest.mark.real
@pytest.mark.parametrize(
    ("folder", "shape"),
    [("ct/CPTAC-PDA_C3N-00249", (102, 512, 512)), ("ct/Lung-PET-CT-Dx_A0002", (30, 512, 512))],
)
def test_a_clinical_folder_becomes_the_volume_that_simpleitk_reads(
    data: Path, tmp_path: Path, folder: str, shape: tuple[int, int, int]
) -> None:
    preprocess(data / folder, tmp_path / "out")
    volume = only_volume(tmp_path / "out")
    assert volume.geometry.shape == shape
    check_against_simpleitk(volume, data / folder / "dicom")
