"""No identity leaves preprocess but in the identity map, which stays private."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import made
from canary import DATE, NUMBER, UID, WORD, needles, plant, search
from ct_files import unitochest
from slicestream.__main__ import main
from slicestream.dicom.identity import read_identities
from slicestream.volumes.mask import write_mask
from slicestream.volumes.volume import Volume, read_volume


@pytest.fixture
def identities(tmp_path: Path) -> set[str]:
    """What identifies the patient of a cohort."""
    return plant(unitochest(tmp_path / "plain", patients=1, slices=3), tmp_path / WORD)


@pytest.fixture
def out(identities: set[str], tmp_path: Path) -> Path:
    """What preprocess makes of that cohort."""
    assert identities
    (tmp_path / "key").write_text("a secret of the tests only\n")
    files = ["--cohort", str(tmp_path / WORD), "--pseudonym-key", str(tmp_path / "key")]
    assert main(["preprocess", *files, "--out", str(tmp_path / "out")]) == 0
    return tmp_path / "out"


def only_volume(out: Path) -> Volume:
    (path,) = out.glob("*.volume")
    return read_volume(path)


def test_no_identity_leaves_in_any_spelling(out: Path, identities: set[str]) -> None:
    wanted = needles(identities) | {str(out.parent).encode(): "a path"}
    staying = {"source-1of1.identity", "manifest-1of1.json"}
    leaving = [path for path in out.iterdir() if path.name not in staying]
    assert {path.suffix for path in leaving} == {".volume", ".reference", ".slices", ".json"}
    for path in leaving:
        assert search(path.name.encode(), wanted) == set()
        assert search(path.read_bytes(), wanted) == set(), path.name
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
                assert not any(entry.extra or entry.comment for entry in archive.infolist())


def test_no_identity_is_in_the_viewer(out: Path, identities: set[str], tmp_path: Path) -> None:
    volume = only_volume(out)
    found = np.zeros(volume.hu.shape, np.uint16)
    mask = replace(made.mask(found, volume_hash=volume.content_hash), id=volume.id, geometry=volume.geometry)
    write_mask(tmp_path / "one.mask", mask)
    files = ["--masks", str(tmp_path / "one.mask"), "--volumes", *map(str, out.glob("*.volume"))]
    files += ["--references", *map(str, out.glob("*.reference"))]
    assert main(["view", *files, "--out", str(tmp_path / "seen")]) == 0
    wanted = needles(identities) | {str(tmp_path).encode(): "a path"}
    shown = list((tmp_path / "seen/viewer").iterdir())
    assert f"{volume.id}.js" in {path.name for path in shown}
    for path in shown:
        assert search(path.name.encode() + b"\n" + path.read_bytes(), wanted) == set(), path.name


def test_bits_above_bits_stored_do_not_reach_the_volume(out: Path) -> None:
    assert np.unique(only_volume(out).hu).tolist() == [-500]


def test_the_manifest_is_private_and_names_what_it_is_about(out: Path) -> None:
    path = out / "manifest-1of1.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert WORD in path.read_text()


def test_the_identity_map_is_private_and_gives_headers_in_volume_order(out: Path) -> None:
    path = out / "source-1of1.identity"
    assert path.stat().st_mode & 0o777 == 0o600
    headers = read_identities([path])[str(only_volume(out).id)]
    assert [float(header.ImagePositionPatient[2]) for header in headers] == [0, 2.5, 5]
    assert {str(header.ImagePositionPatient[0]) for header in headers} == {NUMBER}
    assert {header.StudyDate for header in headers} == {DATE}
    assert str(headers[0].PatientName).startswith(WORD)
    assert headers[0].SOPInstanceUID.startswith(UID)
    for header in headers:
        assert "PixelData" not in header
        assert 0x60003000 not in header
