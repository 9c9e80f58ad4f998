"""Bad input to preprocess: one clear line, exit code 2, nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from ct_files import (
    ROOT,
    SIZE,
    change,
    ct_series,
    ct_slice,
    read_rows,
    unitochest,
    write_mask_png,
    write_table,
)
from slicestream.__main__ import main

Spoil = Callable[[Path], object]


def run(cohort: Path, out: Path, *options: str) -> int:
    key = cohort.parent / "key"
    key.write_text("a secret of the tests only\n")
    return main(["preprocess", "--cohort", str(cohort), "--pseudonym-key", str(key), "--out", str(out), *options])


def refused(capsys: pytest.CaptureFixture[str], status: int, out: Path) -> str:
    """Return the one line of a refusal after seeing that nothing was kept."""
    said = capsys.readouterr()
    assert status == 2
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    assert said.err.startswith("slicestream preprocess: ")
    assert not out.exists() or not list(out.iterdir())
    return said.err


def only(folder: Path, *, text: str) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "0.dcm").write_text(text)


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def compressed_and_cut(path: Path) -> None:
    image = dcmread(path)
    image.PixelData = np.random.default_rng(0).integers(0, 4096, (SIZE, SIZE)).astype("<u2").tobytes()
    image.compress(RLELossless, generate_instance_uid=False)
    image.save_as(path)
    cut(path, 0.9)


def deflated_and_cut(path: Path) -> None:
    change(path)
    image = dcmread(path)
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    image.save_as(path)
    cut(path, 0.8)


def rewrite(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def all_slices(folder: Path, **header: object) -> None:
    for path in folder.glob("*.dcm"):
        change(path, **header)


PLAIN: dict[str, tuple[Spoil, str]] = {
    "no folder": (shutil.rmtree, "cohort: not a folder"),
    "empty folder": (emptied, "no CT image; need DICOM files of CT"),
    "not DICOM": (lambda f: only(f, text="this is no DICOM file" * 20), "0.dcm: not a DICOM file"),
    "empty file": (lambda f: only(f, text=""), "0.dcm: "),
    "only other files": (
        lambda f: [p.rename(p.with_suffix(".txt")).write_text("no") for p in sorted(f.iterdir())],
        "no CT image, only 4 not DICOM;",
    ),
    "DICOM without pixels": (lambda f: change(f / "2.dcm", PixelData=None), "2.dcm: DICOM without pixels"),
    "MR": (lambda f: all_slices(f, Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4"), "modality MR (MR Image"),
    "MR by modality": (lambda f: change(f / "1.dcm", Modality="MR"), "1.dcm: modality MR"),
    "only a SEG": (lambda f: all_slices(f, Modality="SEG"), "no CT image, only 4 SEG;"),
    "multi-frame CT": (lambda f: change(f / "1.dcm", NumberOfFrames="2"), "2 frames; need one frame"),
    "an enhanced CT without its frames": (
        lambda f: change(f / "1.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1"),
        "1.dcm: no NumberOfFrames in the header",
    ),
    "missing slice": (lambda f: (f / "1.dcm").unlink(), "5.00 mm apart where the series has a slice every 2.50 mm"),
    "varying spacing": (
        lambda f: change(f / "3.dcm", ImagePositionPatient=["0", "0", "8.5"]),
        "slice spacing 2.50 to 3.50 mm",
    ),
    "duplicate positions": (
        lambda f: ct_slice(f / "again.dcm", z_mm=2.5, SOPInstanceUID=f"{ROOT}.77", RescaleIntercept="0"),
        "both at 2.50 mm; need one slice per position",
    ),
    "tilted gantry": (
        lambda f: [change(f / f"{k}.dcm", ImagePositionPatient=["0", f"{k}", f"{2.5 * k}"]) for k in range(4)],
        "slices shift by up to 3.0 mm sideways",
    ),
    "two sizes": (
        lambda f: change(f / "2.dcm", Rows=8, PixelData=bytes(8 * SIZE * 2)),
        "size (rows, columns) 8, 16, but 16, 16",
    ),
    "two pixel spacings": (lambda f: change(f / "2.dcm", PixelSpacing=["0.8", "0.8"]), "pixel spacing, mm 0.8, 0.8"),
    "two orientations": (
        lambda f: change(f / "2.dcm", ImageOrientationPatient=["-1", "0", "0", "0", "-1", "0"]),
        "orientation -1, 0, 0",
    ),
    "no position": (lambda f: change(f / "2.dcm", ImagePositionPatient=None), "no ImagePositionPatient"),
    "no rescale": (lambda f: change(f / "2.dcm", RescaleSlope=None), "2.dcm: no RescaleSlope"),
    "slope 0": (lambda f: change(f / "2.dcm", RescaleSlope="0"), "RescaleSlope 0"),
    "not HU": (lambda f: change(f / "2.dcm", RescaleType="MGML"), "RescaleType MGML; need HU"),
    "colour": (lambda f: change(f / "2.dcm", SamplesPerPixel=3, PhotometricInterpretation="RGB"), "3 samples"),
    "truncated pixels": (lambda f: cut(f / "2.dcm", 0.9), "2.dcm: pixels cannot be decoded"),
    "truncated header": (lambda f: cut(f / "2.dcm", 0.3), "2.dcm: "),
    "truncated in the preamble": (lambda f: cut(f / "2.dcm", 0.1), "2.dcm: "),
    "truncated compressed pixels": (lambda f: compressed_and_cut(f / "2.dcm"), "2.dcm: "),
    "truncated deflated file": (lambda f: deflated_and_cut(f / "2.dcm"), "2.dcm: truncated or damaged"),
    "damaged element": (
        lambda f: rewrite(f / "2.dcm", b"\x08\x00\x60\x00CS", b"\x08\x00\x60\x00ZZ"),
        "2.dcm: Modality cannot be read",
    ),
    "a size that is two numbers": (lambda f: change(f / "2.dcm", Rows=[16, 16]), "2.dcm: Rows is [16, 16]"),
    "a spacing that is one number": (
        lambda f: change(f / "2.dcm", PixelSpacing="0.7"),
        "PixelSpacing is not 2 numbers",
    ),
    "a spacing of 0": (lambda f: all_slices(f, PixelSpacing=["0", "0"]), "16 x 16 pixels of 0 x 0 mm"),
    "bits that do not fit": (lambda f: change(f / "2.dcm", HighBit=20), "12 bits stored, high bit 20, 16 allocated"),
    "a slope that is no number": (lambda f: change(f / "2.dcm", RescaleSlope=["1", "2"]), "RescaleSlope is no number"),
    "two patients in a series": (lambda f: change(f / "2.dcm", PatientID="P2"), "2.dcm: another PatientID"),
}


@pytest.mark.parametrize("what", PLAIN)
def test_a_spoilt_plain_folder_is_one_line(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, expected = PLAIN[what]
    ct_series(tmp_path / "cohort")
    spoil(tmp_path / "cohort")
    line = refused(capsys, run(tmp_path / "cohort", tmp_path / "out"), tmp_path / "out")
    assert expected in line
    assert str(tmp_path / "cohort") in line


def test_a_single_slice_without_thickness_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ct_series(tmp_path / "cohort", slices=1, SliceThickness=None)
    line = refused(capsys, run(tmp_path / "cohort", tmp_path / "out"), tmp_path / "out")
    assert "the only slice of its series and no SliceThickness" in line


def edit_row(folder: Path, number: int, **fields: str) -> None:
    rows = read_rows(folder)
    rows[number] |= fields
    write_table(folder, rows)


FIRST_MASK = "masks/patient_0001/exam_1/0001_1_0001_mask.png"
FIRST_IMAGE = "images/patient_0001/exam_1/0001_1_0001.dcm"
LISTED: dict[str, tuple[Spoil, str]] = {
    "mask of another size": (
        lambda f: write_mask_png(f / FIRST_MASK, np.zeros((8, 8), np.uint8)),
        "mask of 8 x 8 pixels, its image has 16 x 16",
    ),
    "mask value 1": (
        lambda f: write_mask_png(f / FIRST_MASK, np.ones((SIZE, SIZE), np.uint8)),
        "mask holds the value 1; need 0 (background) and 255",
    ),
    "colour mask": (
        lambda f: write_mask_png(f / FIRST_MASK, np.zeros((SIZE, SIZE, 3), np.uint8)),
        "mask of mode RGB",
    ),
    "truncated mask": (lambda f: cut(f / FIRST_MASK, 0.5), "mask cannot be read"),
    "mask that is no image": (lambda f: (f / FIRST_MASK).write_text("no"), "mask cannot be read"),
    "row without its image": (lambda f: (f / FIRST_IMAGE).unlink(), f"line 2: file '{FIRST_IMAGE}' is not in"),
    "row without its mask": (lambda f: (f / FIRST_MASK).unlink(), f"line 2: file '{FIRST_MASK}' is not in"),
    "path out of the cohort": (lambda f: edit_row(f, 0, image="../key"), "line 2: '../key' leads out of"),
    "absolute path": (lambda f: edit_row(f, 1, mask="/etc/hostname"), "line 3: '/etc/hostname' leads out of"),
    "image in two rows": (lambda f: edit_row(f, 1, image=FIRST_IMAGE), "stands in two rows"),
    "row without a patient": (lambda f: edit_row(f, 1, patientID=""), "line 3: no patientID"),
    "table without rows": (lambda f: write_table(f, []), "no rows"),
    "table without columns": (lambda f: (f / "dataset.csv").write_text("a,b\n1,2\n"), "no column patientID, exam"),
    "table that is no text": (lambda f: (f / "dataset.csv").write_bytes(b"\xff\xfe\x00"), "not a CSV table"),
    "exam of two patients": (lambda f: edit_row(f, 0, patientID="0002"), "need one patient"),
    "series in two exams": (lambda f: edit_row(f, 0, exam="2"), "need a series in one exam only"),
}


@pytest.mark.parametrize("what", LISTED)
def test_a_spoilt_labelled_cohort_is_one_line(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, expected = LISTED[what]
    spoil(unitochest(tmp_path / "cohort"))
    assert expected in refused(capsys, run(tmp_path / "cohort", tmp_path / "out"), tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--share", "3/2"], "--share 3/2: need i/n"),
        (["--share", "first"], "--share first: need i/n"),
        (["--negatives", "1.5"], "--negatives 1.5: need a share from 0 to 1"),
        (["--exclude", "nowhere.txt"], "--exclude nowhere.txt: cannot be read"),
    ],
)
def test_a_bad_option_is_one_line(
    options: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ct_series(tmp_path / "cohort")
    assert expected in refused(capsys, run(tmp_path / "cohort", tmp_path / "out", *options), tmp_path / "out")


def test_a_short_or_missing_key_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ct_series(tmp_path / "cohort")
    key, out = tmp_path / "key", tmp_path / "out"
    arguments = ["preprocess", "--cohort", str(tmp_path / "cohort"), "--pseudonym-key", str(key), "--out", str(out)]
    assert "No such file" in refused(capsys, main(arguments), out)
    key.write_text("short\n")
    assert "5 bytes; need 16 or more" in refused(capsys, main(arguments), out)


def test_excluding_everybody_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ct_series(tmp_path / "cohort")
    (tmp_path / "list").write_text("P1\n")
    status = run(tmp_path / "cohort", tmp_path / "out", "--exclude", str(tmp_path / "list"))
    assert "every patient (1) is excluded" in refused(capsys, status, tmp_path / "out")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Return a function that mounts a tmpfs with given options; root ignores permission bits, mounts it does not."""
    places: list[Path] = []

    def make(options: str) -> Path:
        place = tmp_path / f"mount{len(places)}"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(place)], capture_output=True, text=True, check=False
        )
        if os.geteuid() != 0 or done.returncode != 0:
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")
        places.append(place)
        return place

    yield make
    for place in places:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_one_line(
    mount: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (128, 128)).astype("<u2").tobytes()
    ct_series(tmp_path / "cohort", slices=6, Rows=128, Columns=128, PixelData=noise)
    out = mount("size=64k")
    assert "No space left on device" in refused(capsys, run(tmp_path / "cohort", out), out)


def test_a_disk_that_fills_with_headers_is_one_line(
    mount: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).bytes(9000).hex()
    ct_series(tmp_path / "cohort", slices=12, ImageComments=noise)
    out = mount("size=64k")
    assert "No space left on device" in refused(capsys, run(tmp_path / "cohort", out), out)


def test_a_read_only_mount_is_one_line(
    mount: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ct_series(tmp_path / "cohort")
    out = mount("ro")
    assert "Read-only file system" in refused(capsys, run(tmp_path / "cohort", out), out)
    status = run(tmp_path / "cohort", out / "deeper" / "still")
    assert "Read-only file system" in refused(capsys, status, out)


def test_the_phantom_refuses_a_full_disk_too(mount: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    out = mount("size=64k")
    assert main(["phantom", "--patients", "1", "--matrix", "128", "--out", str(out)]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not list(out.iterdir())
