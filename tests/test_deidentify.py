"""The command deidentify: what is handed on, what is set aside, and what the report tells."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

import canary
from ct_files import change, ct_series, ct_slice
from slicestream.__main__ import main
from slicestream.dicom.pseudonyms import pseudonym

SECRET = b"a key of the tests, long enough"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"
PDF = "1.2.840.10008.5.1.4.1.1.104.1"
DIRECTORY = "1.2.840.10008.1.3.10"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(SECRET)
    return path


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Four slices of one patient whose names, files and folders carry marks."""
    folder = tmp_path / f"{canary.WORD}-study"
    for number, path in enumerate(ct_series(folder / f"{canary.WORD}-folder", patient=canary.WORD)):
        canary.mark_header(path, number)
        change(path, PixelData=np.full((16, 16), 524, "<u2").tobytes(), ImagePositionPatient=[0, 0, number * 2.5])
        os.utime(path, (10**9, 10**9))
    return folder


def run(folder: Path, key: Path, out: Path, *flags: str) -> int:
    return main(["deidentify", "--dicom", str(folder), "--pseudonym-key", str(key), "--out", str(out), *flags])


def files(out: Path) -> list[Path]:
    return sorted(path for path in out.rglob("*") if path.is_file())


def test_files_are_named_by_pseudonym_and_new_uids(study: Path, key: Path, tmp_path: Path) -> None:
    patient = dcmread(next(study.rglob("*.dcm"))).PatientID
    assert run(study, key, tmp_path / "out") == 0
    found = sorted((tmp_path / "out").rglob("*.dcm"))
    assert len(found) == 4
    for path in found:
        image = dcmread(path)
        assert path.name == f"{image.SOPInstanceUID}.dcm"
        assert path.parent.name == image.SeriesInstanceUID
        assert path.parent.parent.name == image.PatientID == pseudonym(SECRET, "patient", patient)
        assert path.stat().st_mtime > 1.5e9
    assert len(files(tmp_path / "out")) == 5  # and the report


def test_no_mark_is_in_names_files_or_report(study: Path, key: Path, tmp_path: Path) -> None:
    wanted = canary.needles({canary.WORD})
    assert any(canary.search(path.read_bytes(), wanted) for path in study.rglob("*.dcm"))
    (study / f"{canary.WORD}.txt").write_text(canary.WORD)
    wanted |= canary.needles({canary.DATE})
    for flags in ((), ("--modified-dates", "--retain-characteristics")):
        assert run(study, key, tmp_path / "out", *flags) == 0
        assert len(files(tmp_path / "out")) == 5
        for path in files(tmp_path / "out"):
            assert canary.WORD not in str(path.relative_to(tmp_path / "out"))
            assert not canary.search(path.read_bytes(), wanted)
        shutil.rmtree(tmp_path / "out")


def test_two_runs_give_the_same_names_and_pixels(study: Path, key: Path, tmp_path: Path) -> None:
    assert run(study, key, tmp_path / "a") == run(study, key, tmp_path / "b") == 0
    first, second = ([p.relative_to(out) for p in files(out)] for out in (tmp_path / "a", tmp_path / "b"))
    assert first == second
    for name in first:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_report_counts_what_was_done_by_attribute(study: Path, key: Path, tmp_path: Path, capsys) -> None:
    (study / "notes.txt").write_text("a name")
    assert run(study, key, tmp_path / "out", "--retain-characteristics") == 0
    said = capsys.readouterr()
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["standard"] == "DICOM PS3.15 2026c, Annex E"
    assert report["profile_and_options"] == [
        "113100 Basic Application Confidentiality Profile",
        "113104 Clean Structured Content Option",
        "113108 Retain Patient Characteristics Option",
    ]
    assert (report["patients"], report["series"], report["files"]) == (1, 1, {"CT Image Storage": 4})
    assert report["set_aside"] == {"not DICOM": 1}
    done = report["attributes"]
    assert done["(0008,0050) Accession Number"] == {"emptied": 4}
    assert done["(0008,0018) SOP Instance UID"] == {"UID mapped": 4}
    assert done["(ggggeeee) Private Attributes"] == {"removed": 8}
    assert done["(60xx,3000) Overlay Data"] == {"removed": 8}
    assert done["(0010,0020) Patient ID"] == {"emptied": 4, "pseudonym": 4}
    assert "1 patients, 1 series, 4 files; 1 set aside" in said.out
    assert "notes.txt" in said.err
    assert "notes" not in json.dumps(report)


BURNED = {
    "YES in the header": ({"BurnedInAnnotation": "YES"}, "BurnedInAnnotation is YES", False),
    "a face": ({"RecognizableVisualFeatures": "YES"}, "RecognizableVisualFeatures is YES", False),
    "a capture": ({"SOPClassUID": SECONDARY_CAPTURE, "Modality": "CT"}, "often shows text", True),
    "ultrasound": ({"SOPClassUID": ULTRASOUND, "Modality": "US"}, "often shows text", True),
    "scanned film": ({"ConversionType": "DF"}, "ConversionType", True),
    "derived": ({"ImageType": ["DERIVED", "SECONDARY"]}, "not an ORIGINAL image", True),
    "no image type": ({"ImageType": ""}, "not an ORIGINAL image", True),
    "spare bits": ({"PixelData": np.full((16, 16), 0x5000, "<u2").tobytes()}, "bits above BitsStored", False),
    "a document": ({"SOPClassUID": PDF}, "a document", False),
    "an index": ({"SOPClassUID": DIRECTORY}, "DICOMDIR", False),
    "no SOP class": ({"SOPClassUID": ""}, "no SOP class", False),
}


@pytest.mark.parametrize(("header", "reason", "acceptable"), BURNED.values(), ids=BURNED.keys())
def test_what_may_show_an_identity_is_set_aside(
    header: dict[str, object], reason: str, acceptable: bool, key: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    _, bad = ct_series(folder, slices=2)
    change(bad, **header)
    assert run(folder, key, tmp_path / "out") == 0
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 1
    aside = json.loads((tmp_path / "out/report.json").read_text())["set_aside"]
    assert len(aside) == 1
    assert reason in next(iter(aside))
    assert run(folder, key, tmp_path / "accepted", "--accept-unstated") == 0
    assert len(list((tmp_path / "accepted").rglob("*.dcm"))) == 1 + acceptable
    assert run(folder, key, tmp_path / "strict", "--strict") == 2
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize("header", [{"ImageType": ["DERIVED", "PRIMARY"]}, {"SOPClassUID": SECONDARY_CAPTURE}])
def test_who_says_no_goes(header: dict[str, object], key: Path, tmp_path: Path) -> None:
    change(ct_slice(tmp_path / "study/a.dcm", z_mm=0.0), BurnedInAnnotation="NO", **header)
    assert run(tmp_path / "study", key, tmp_path / "out", "--strict") == 0


def test_negative_values_and_padding_are_no_hidden_bits(key: Path, tmp_path: Path) -> None:
    pixels = np.array([-2000, -1024, 0, 2047] * 64, "<i2")
    ct_slice(
        tmp_path / "study/a.dcm", z_mm=0.0, PixelRepresentation=1, PixelPaddingValue=-2000, PixelData=pixels.tobytes()
    )
    assert run(tmp_path / "study", key, tmp_path / "out", "--strict") == 0


def test_images_of_heads_are_noted(key: Path, tmp_path: Path, capsys) -> None:
    ct_series(tmp_path / "study", BodyPartExamined="HEAD")
    assert run(tmp_path / "study", key, tmp_path / "out") == 0
    assert "4 images show a head" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/report.json").read_text())["images_of_heads"] == 4


def test_a_second_file_of_an_instance_is_set_aside(key: Path, tmp_path: Path) -> None:
    first = ct_slice(tmp_path / "study/a.dcm", z_mm=0.0)
    shutil.copy(first, tmp_path / "study/b.dcm")
    assert run(tmp_path / "study", key, tmp_path / "out") == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["set_aside"] == {"a second file of the same SOP instance": 1}


REFUSED = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "truncated"),
    "no series": (lambda path: change(path, SeriesInstanceUID=None), "no SeriesInstanceUID"),
    "nothing but text": (lambda path: path.write_text("hello"), "no file to hand on"),
}


@pytest.mark.parametrize(("spoil", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_one_line_and_nothing_is_written(spoil, words: str, key: Path, tmp_path: Path, capsys) -> None:
    spoil(ct_slice(tmp_path / "study/a.dcm", z_mm=0.0))
    assert run(tmp_path / "study", key, tmp_path / "out") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("slicestream deidentify: ")
    assert words in last
    assert not (tmp_path / "out").exists()


def test_a_uid_that_leads_elsewhere_is_refused(key: Path, tmp_path: Path, capsys) -> None:
    change(ct_slice(tmp_path / "study/a.dcm", z_mm=0.0), SeriesInstanceUID="../../up")
    assert run(tmp_path / "study", key, tmp_path / "out", "--retain-uids") == 2
    assert "not one valid UID" in capsys.readouterr().err
    assert not (tmp_path / "up").exists()


def test_a_missing_folder_a_short_key_and_the_source_as_target_are_refused(key: Path, study: Path, capsys) -> None:
    assert run(study / "none", key, study.parent / "out") == 2
    assert run(study, key, study) == 2
    key.write_bytes(b"short")
    assert run(study, key, study.parent / "out") == 2
    said = capsys.readouterr().err.splitlines()
    assert ["not a folder" in said[0], "the folder of the source" in said[1], "16" in said[2]] == [True] * 3
    assert not (study.parent / "out").exists()


def test_a_file_that_cannot_be_read_is_named(
    study: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    locked, opened = min(study.rglob("*.dcm")), Path.open

    def refuse(path: Path, *args, **kwargs):
        if path == locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    assert run(study, key, tmp_path / "out") == 2
    assert f"{locked}: cannot be read (Permission denied)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_told_as_one(key: Path, tmp_path: Path) -> None:
    ct_slice(tmp_path / "study/a.dcm", z_mm=0.0, Rows=512, Columns=512, PixelData=b"\0" * 512 * 512 * 2)
    words = ["deidentify", "--dicom", tmp_path / "study", "--pseudonym-key", key, "--out", tmp_path / "out"]
    shell = 'trap "" XFSZ; ulimit -f 100; exec "$@"'  # 100 blocks, of 512 bytes or of 1024
    ran = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-m", "slicestream", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert "File too large; nothing was kept half-written" in ran.stderr
    assert not (tmp_path / "out").exists()


def test_a_delivery_that_is_there_is_not_mixed_with_another(study: Path, key: Path, tmp_path: Path) -> None:
    assert run(study, key, tmp_path / "out") == 0
    before = {path: path.read_bytes() for path in files(tmp_path / "out")}
    assert run(study, key, tmp_path / "out") == 2
    assert {path: path.read_bytes() for path in files(tmp_path / "out")} == before
