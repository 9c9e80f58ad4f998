"""What is found in a folder, and what becomes of it: every oddity beside a good series, and alone."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.data import data_manager
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet

from ct_files import ROOT, change, ct_series, ct_slice, enhanced_ct, read_rows, unitochest, write_mask_png, write_table
from slicestream.__main__ import main
from slicestream.dicom import identity
from slicestream.errors import StudyError
from slicestream.volumes.volume import read_volume

MR = {"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}


def preprocess(cohort: Path, out: Path, *options: str) -> int:
    key = out.parent / "key"
    key.write_text("a secret of the tests only\n")
    return main(["preprocess", "--cohort", str(cohort), "--pseudonym-key", str(key), "--out", str(out), *options])


def entries(out: Path, share: str = "1of1") -> list[dict[str, Any]]:
    return list(json.loads((out / f"manifest-{share}.json").read_text())["entries"])


def aside(out: Path) -> list[tuple[str, int]]:
    return sorted((entry["reason"], entry["files"]) for entry in entries(out) if entry["outcome"] == "set aside")


def made(folder: Path, count: int = 3, **header: Any) -> None:
    """Write a second series, 2, whose slices are moved or changed."""
    for k in range(count):
        ct_slice(folder / f"odd{k}.dcm", z_mm=2.5 * k, series=2, **header)


def text(path: Path, words: str = "hello") -> None:
    path.write_text(words)


# oddity → (how it is made beside a good series, reason in the manifest, files, whether --strict stops at it)
BESIDE: dict[str, tuple[Callable[[Path], object], str, int, bool]] = {
    "a text file": (lambda f: text(f / "README"), "not-dicom", 1, False),
    "a picture": (lambda f: write_mask_png(f / "a.png", np.zeros((4, 4), np.uint8)), "not-dicom", 1, False),
    "a pipe": (lambda f: os.mkfifo(f / "pipe"), "not-dicom", 1, False),
    "a SEG": (lambda f: made(f, Modality="SEG"), "companion", 3, False),
    "a dose report": (
        lambda f: made(f, 1, Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.67"),
        "companion",
        1,
        False,
    ),
    "a secondary capture": (
        lambda f: made(f, 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.7"),
        "secondary-capture",
        1,
        False,
    ),
    "a screen save": (
        lambda f: made(f, 1, ImageType=["ORIGINAL", "PRIMARY", "SCREEN SAVE"]),
        "secondary-capture",
        1,
        False,
    ),
    "a scout": (lambda f: made(f, 2, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer", 2, False),
    "an MR": (lambda f: made(f, **MR), "other-modality", 3, False),
    "a PET": (lambda f: made(f, Modality="PT", SOPClassUID="1.2.840.10008.5.1.4.1.1.128"), "companion", 3, False),
    "a palette": (
        lambda f: made(f, 1, Modality=None, SOPClassUID="1.2.840.10008.5.1.4.39.1", SeriesInstanceUID=None),
        "companion",
        1,
        False,
    ),
    "a file named .dcm that is no DICOM": (lambda f: text(f / "9.dcm", "x" * 500), "damaged", 1, True),
    "an empty .dcm": (lambda f: text(f / "9.dcm", ""), "damaged", 1, True),
    "a missing slice": (lambda f: (made(f, 4), (f / "odd1.dcm").unlink()), "missing-slice", 3, True),
    "varying spacing": (
        lambda f: (made(f), change(f / "odd2.dcm", ImagePositionPatient=["0", "0", "6"])),
        "varying-spacing",
        3,
        True,
    ),
    "a tilted gantry": (
        lambda f: (made(f), [change(f / f"odd{k}.dcm", ImagePositionPatient=[0, k, 2.5 * k]) for k in range(3)]),
        "tilt",
        3,
        True,
    ),
    "two sizes": (
        lambda f: (made(f), change(f / "odd1.dcm", Rows=8, PixelData=bytes(8 * 16 * 2))),
        "mixed-grid",
        3,
        True,
    ),
    "no positions": (lambda f: made(f, ImagePositionPatient=None), "header", 3, True),
    "no pixels": (lambda f: made(f, PixelData=None), "no-pixels", 3, True),
    "truncated pixels": (
        lambda f: (made(f), (f / "odd1.dcm").write_bytes((f / "odd1.dcm").read_bytes()[:-20])),
        "pixels",
        3,
        True,
    ),
    "two patients": (lambda f: (made(f), change(f / "odd1.dcm", PatientID="P2")), "two-patients", 3, True),
    "one slice that is an MR": (lambda f: (made(f), change(f / "odd1.dcm", Modality="MR")), "mixed-modality", 3, True),
    "a SOPInstanceUID at two positions": (lambda f: made(f, SOPInstanceUID=f"{ROOT}.5"), "same-instance", 3, True),
    "a concatenation": (
        lambda f: enhanced_ct(f / "e.dcm", [0, 2.5], SeriesInstanceUID=f"{ROOT}.2", ConcatenationUID=f"{ROOT}.3"),
        "concatenation",
        1,
        True,
    ),
    "an enhanced CT with a frame too few": (
        lambda f: enhanced_ct(f / "e.dcm", [0, 2.5], SeriesInstanceUID=f"{ROOT}.2", NumberOfFrames=3),
        "functional-groups",
        1,
        True,
    ),
    "an enhanced CT with pixels of one frame": (
        lambda f: enhanced_ct(f / "e.dcm", [0, 2.5], SeriesInstanceUID=f"{ROOT}.2", PixelData=bytes(512)),
        "pixels",
        1,
        True,
    ),
    "colour": (lambda f: made(f, SamplesPerPixel=3, PhotometricInterpretation="RGB"), "header", 3, True),
}


@pytest.mark.parametrize("what", BESIDE)
def test_what_is_no_volume_is_set_aside_with_its_reason_and_the_rest_goes_on(what: str, tmp_path: Path) -> None:
    spoil, reason, files, stops = BESIDE[what]
    ct_series(tmp_path / "cohort" / "good")
    spoil(tmp_path / "cohort")
    assert preprocess(tmp_path / "cohort", tmp_path / "out") == 0
    assert aside(tmp_path / "out") == [(reason, files)]
    (path,) = (tmp_path / "out").glob("*.volume")
    assert read_volume(path).hu.shape == (4, 16, 16)
    assert preprocess(tmp_path / "cohort", tmp_path / "strict", "--strict") == (2 if stops else 0)
    assert (tmp_path / "strict").exists() != stops


def test_a_file_whose_meta_information_is_damaged_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ct_slice(tmp_path / "cohort" / "0", z_mm=0, SOPClassUID=None)
    path.write_bytes(path.read_bytes().replace(b"\x02\x00\x02\x00UI", b"\x02\x00\x02\x00U\x7f"))
    assert preprocess(tmp_path / "cohort", tmp_path / "out") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_error_stays_one_line_whatever_else_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path / "cohort", PatientID=None, PixelSpacing=["0", "0"])
    text(tmp_path / "cohort" / "README")
    assert preprocess(tmp_path / "cohort", tmp_path / "out") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_strict_run_says_what_it_stopped_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ct_series(tmp_path / "cohort" / "good")
    made(tmp_path / "cohort", ImagePositionPatient=None)
    assert preprocess(tmp_path / "cohort", tmp_path / "out", "--strict") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "odd0.dcm: no ImagePositionPatient in the header" in said
    assert "(--strict: nothing may be set aside.)" in said


def test_a_series_set_aside_is_said_on_stderr_and_listed_with_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ct_series(tmp_path / "cohort" / "good")
    made(tmp_path / "cohort" / "odd", ImagePositionPatient=None)
    assert preprocess(tmp_path / "cohort", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "preprocess: set aside (header, 3 files): " in said
    good, odd = entries(tmp_path / "out")
    assert (good["path"], good["outcome"], good["reason"], good["files"]) == ("good", "volume", "used", 4)
    assert good["series"] == f"{ROOT}.1"
    assert (tmp_path / "out" / f"{good['volume']}.volume").exists()
    assert (odd["path"], odd["outcome"], odd["series"], odd["found"]) == ("odd", "set aside", f"{ROOT}.2", "CT")
    assert odd["volume"] is None
    assert odd["text"] in said


def test_nothing_usable_names_the_first_fault_and_counts_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path / "cohort" / "a", ImagePositionPatient=None)
    ct_series(tmp_path / "cohort" / "b", series=3, PixelSpacing=["0", "0"])
    assert preprocess(tmp_path / "cohort", tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()
    said = capsys.readouterr().err
    assert "odd0.dcm: no ImagePositionPatient in the header" in said
    assert "(1 more set aside; nothing is left.)" in said


def test_a_cohort_of_which_nothing_can_be_used_is_refused_in_every_share(tmp_path: Path) -> None:
    for k in (1, 2):
        ct_series(tmp_path / "cohort" / f"{k}", series=k, patient=f"P{k}", ImagePositionPatient=None)
    for share in ("1/2", "2/2"):
        assert preprocess(tmp_path / "cohort", tmp_path / "out", "--share", share) == 2
        assert not (tmp_path / "out").exists()


def test_a_share_of_which_nothing_can_be_used_is_empty_where_another_is_not(tmp_path: Path) -> None:
    ct_series(tmp_path / "cohort" / "a", slices=9)
    ct_series(tmp_path / "cohort" / "b", slices=4, series=2, patient="P2", ImagePositionPatient=None)
    for share, volumes in (("1of2", 1), ("2of2", 0)):
        assert preprocess(tmp_path / "cohort", tmp_path / share, "--share", share.replace("of", "/")) == 0
        assert len(list((tmp_path / share).glob("*.volume"))) == volumes
    assert [entry["reason"] for entry in entries(tmp_path / "2of2", "2of2")] == ["header"]


def test_what_is_found_before_reading_stands_in_the_first_manifest_only(tmp_path: Path) -> None:
    for patient in (1, 2):
        ct_series(tmp_path / "cohort" / f"{patient}", series=patient, patient=f"P{patient}")
    text(tmp_path / "cohort" / "README")
    for share in ("1of2", "2of2"):
        assert preprocess(tmp_path / "cohort", tmp_path / share, "--share", share.replace("of", "/")) == 0
    reasons = [sorted(e["reason"] for e in entries(tmp_path / s, s)) for s in ("1of2", "2of2")]
    assert reasons == [["not-dicom", "used"], ["used"]]


def test_files_are_known_by_what_stands_in_them_whatever_they_are_called(tmp_path: Path) -> None:
    names = ("IM0001", "slice.txt", ".hidden", "a.b.c.1234", "picture.jpg", "x.DCM")
    for k, name in enumerate(names):
        ct_slice(tmp_path / "cohort" / ("deep/" * k) / name, z_mm=2.5 * k)
    assert preprocess(tmp_path / "cohort", tmp_path / "out") == 0
    (entry,) = entries(tmp_path / "out")
    assert entry["files"] == len(names)


def test_a_dicomdir_with_files_without_suffix_is_walked_not_read(tmp_path: Path) -> None:
    for path in ct_series(tmp_path / "plain", StudyDate="20200101", StudyTime="120000", StudyID="1", SeriesNumber=1):
        change(path, InstanceNumber=1)
    files = FileSet()
    stage = files._stage["t"]
    for path in (tmp_path / "plain").iterdir():
        files.add(path)
    files.write(tmp_path / "cohort")
    for folder in (stage, files._stage["t"]):
        folder.cleanup()  # else it warns
    assert (tmp_path / "cohort" / "DICOMDIR").is_file()
    assert preprocess(tmp_path / "cohort", tmp_path / "out") == 0
    assert aside(tmp_path / "out") == [("dicomdir", 1)]
    assert [entry["files"] for entry in entries(tmp_path / "out") if entry["volume"]] == [4]


def test_an_annotation_says_which_series_it_was_drawn_on(tmp_path: Path) -> None:
    ct_series(tmp_path / "cohort")
    ct_series(tmp_path / "cohort" / "sharp", series=2, ConvolutionKernel="B70f")
    drawn_on = Dataset()
    drawn_on.SeriesInstanceUID = f"{ROOT}.2"
    ct_slice(tmp_path / "cohort" / "seg", z_mm=0, series=7, Modality="SEG", ReferencedSeriesSequence=[drawn_on])
    assert preprocess(tmp_path / "cohort", tmp_path / "out") == 0
    found = {entry["series"]: entry for entry in entries(tmp_path / "out")}
    assert found[f"{ROOT}.7"]["references"] == [f"{ROOT}.2"]
    assert {uid: found[uid]["reason"] for uid in (f"{ROOT}.1", f"{ROOT}.2")} == {
        f"{ROOT}.1": "not-annotated",
        f"{ROOT}.2": "used",
    }


def test_reconstructions_of_one_acquisition_are_all_kept_named_and_told_of_the_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ct_series(tmp_path / "cohort" / "soft", ConvolutionKernel="B30f")
    for k in range(8):
        ct_slice(tmp_path / "cohort" / "sharp" / f"{k}", z_mm=1.25 * k, series=2, ConvolutionKernel="B70f")
    ct_series(tmp_path / "cohort" / "elsewhere", series=3, FrameOfReferenceUID=f"{ROOT}.88")
    ct_slice(tmp_path / "cohort" / "far", z_mm=500, series=4)
    assert preprocess(tmp_path / "cohort", tmp_path / "out") == 0
    found = {entry["series"]: entry for entry in entries(tmp_path / "out")}
    listed = {series[-1]: [other[-1] for other in entry["reconstructions"]] for series, entry in found.items()}
    assert listed == {"1": ["2"], "2": ["1"], "3": [], "4": []}
    names = ", ".join(found[f"{ROOT}.{k}"]["volume"] for k in (1, 2))
    said = capsys.readouterr().err
    assert f"2 series of one place ({names}): all become volumes; no annotation was drawn on any of them" in said


def test_the_annotated_reconstruction_is_the_one_that_is_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = unitochest(tmp_path / "cohort", patients=1)
    rows = read_rows(cohort)
    for k in range(4):
        name = f"images/patient_0001/exam_1/sharp{k}.dcm"
        ct_slice(cohort / name, z_mm=2.5 * k, patient="P1", series=70)
        rows.append({**rows[0], "image": name, "mask": ""})
    write_table(cohort, rows)
    assert preprocess(cohort, tmp_path / "out") == 0
    index = json.loads((tmp_path / "out" / "series-1of1.json").read_text())["series"]
    assert sorted((entry["reference"] is not None, entry["training_slices"] > 0) for entry in index) == [
        (False, False),
        (True, True),
    ]
    reasons = {entry["series"]: entry["reason"] for entry in entries(tmp_path / "out")}
    assert reasons == {f"{ROOT}.1": "used", f"{ROOT}.70": "not-annotated"}
    assert "which alone is trained on and scored" in capsys.readouterr().err


def test_a_series_whose_headers_cannot_be_kept_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ct_series(tmp_path / "cohort" / "good")
    made(tmp_path / "cohort" / "odd")
    keep = identity._file

    def refuse(header: Dataset, source: str, encoded: bytes) -> bytes:
        if source.endswith("odd2.dcm"):  # the last of its series
            raise StudyError(f"{source}: header cannot be kept.")
        return keep(header, source, encoded)

    monkeypatch.setattr(identity, "_file", refuse)
    assert preprocess(tmp_path / "cohort", tmp_path / "out") == 0
    assert aside(tmp_path / "out") == [("header", 3)]
    (path,) = (tmp_path / "out").glob("*.volume")
    (kept,) = identity.read_identities((tmp_path / "out").glob("*.identity"))
    assert path.stem == kept
    with zipfile.ZipFile(tmp_path / "out" / "source-1of1.identity") as archive:
        assert len(archive.namelist()) == 5  # four headers and the index


LISTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a slice is missing": (lambda f: (f / "gone").write_text(""), "missing-slice"),
    "a slice is an MR": (lambda f: change(f / "images/patient_0001/exam_1/0001_1_0001.dcm", **MR), "mixed-modality"),
    "a slice is damaged": (lambda f: text(f / "images/patient_0001/exam_1/0001_1_0001.dcm"), "damaged"),
    "pixels are truncated": (
        lambda f: (p := f / "images/patient_0001/exam_1/0001_1_0001.dcm").write_bytes(p.read_bytes()[:-9]),
        "pixels",
    ),
}


@pytest.mark.parametrize("what", LISTED)
def test_an_unusable_series_of_a_table_is_set_aside_with_its_masks(what: str, tmp_path: Path) -> None:
    cohort = unitochest(tmp_path / "cohort")
    spoil, reason = LISTED[what]
    spoil(cohort)
    if reason == "missing-slice":
        write_table(cohort, read_rows(cohort)[:1] + read_rows(cohort)[2:])
    assert preprocess(cohort, tmp_path / "out") == 0
    assert [name for name, _ in aside(tmp_path / "out")] == [reason]
    index = json.loads((tmp_path / "out" / "series-1of1.json").read_text())["series"]
    assert len(index) == len(list((tmp_path / "out").glob("*.reference"))) == 2


def test_a_broken_mask_is_an_error_though_other_series_are_well(tmp_path: Path) -> None:
    cohort = unitochest(tmp_path / "cohort")
    write_mask_png(next(cohort.rglob("*_mask.png")), np.ones((16, 16), np.uint8))
    assert preprocess(cohort, tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()


CARRIED = sorted(path for path in Path(data_manager.DATA_ROOT).rglob("*") if path.is_file())


def test_every_file_that_pydicom_carries_gives_a_volume_or_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(CARRIED) > 150
    outcomes: dict[int, int] = {0: 0, 2: 0}
    for number, path in enumerate(CARRIED):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(path, folder)
        status = preprocess(folder, tmp_path / f"out{number}")
        said = capsys.readouterr().err
        outcomes[status] += 1
        assert status == 0 or said.splitlines()[-1].startswith(f"slicestream preprocess: {folder}"), said
    assert outcomes[0] == 12


def test_all_files_that_pydicom_carries_in_one_folder_are_accounted_for(tmp_path: Path) -> None:
    assert preprocess(Path(data_manager.DATA_ROOT), tmp_path / "out") == 0
    found = entries(tmp_path / "out")
    assert sum(entry["files"] for entry in found) == len(CARRIED)
    assert len([entry for entry in found if entry["volume"]]) == 4
    assert all(entry["text"] and entry["reason"] for entry in found)


@pytest.mark.real
def test_clinical_folders_beside_one_another_become_their_volumes(data: Path, tmp_path: Path) -> None:
    assert preprocess(data / "ct", tmp_path / "out") == 0
    found = entries(tmp_path / "out")
    assert len([entry for entry in found if entry["volume"]]) == 2
    assert not [entry for entry in found if not entry["volume"] and entry["reason"] not in ("annotation", "not-dicom")]
