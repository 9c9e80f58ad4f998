"""Push to and pull from a real Orthanc, by DICOMweb and by DIMSE: what comes back is what was sent."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass
from pydicom import dcmread
from pydicom.encaps import generate_fragments
from pydicom.uid import RLELossless

import output_cases as cases
from archive.orthanc import AET, CALLING, USER, Orthanc
from ct_files import ROOT, ct_series
from slicestream.__main__ import main

BOTH = pytest.mark.parametrize("speaks", ["web", "dimse"])
SEG_STUDY = str(cases.headers()[0].StudyInstanceUID)
STUDIES = (f"{ROOT}.9", SEG_STUDY)


def push(to: str, *what: Path | str) -> int:
    return main(["push", "--to", to, *map(str, what)])


def pull(source: str, out: Path, *what: str) -> int:
    return main(["pull", "--from", source, "--out", str(out), *what])


def by_uid(folder: Path) -> dict[str, Path]:
    return {str(dcmread(path).SOPInstanceUID): path for path in folder.rglob("*.dcm")}


def assert_equal(one: Path, other: Path) -> None:
    ours, theirs = dcmread(one), dcmread(other)
    assert ours.file_meta.TransferSyntaxUID == theirs.file_meta.TransferSyntaxUID
    assert ours.PixelData == theirs.PixelData
    assert ours.to_json_dict() == theirs.to_json_dict()


def test_ct_and_both_kinds_of_seg_come_back_bit_equal_by_dicomweb(
    orthanc: Orthanc, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(orthanc.web, results) == 0
    assert capsys.readouterr().out == "6 instances stored, 0.0 MB; 6 read back by WADO-RS and equal\n"
    assert orthanc.count() == 6
    assert_pulled_is_sent(orthanc.web, results, tmp_path)
    assert {dcmread(p).get("SegmentationType") for p in results.rglob("*.dcm")} == {None, "BINARY", "LABELMAP"}


def test_ct_and_binary_seg_come_back_bit_equal_by_dimse(
    orthanc: Orthanc, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    binary = results / "seg" / "binary.dcm"
    assert push(orthanc.dimse, results / "ct", binary) == 0
    assert capsys.readouterr().out == "5 instances stored, 0.0 MB; 5 read back by C-GET and equal\n"
    assert pull(orthanc.dimse, tmp_path / "ct", "--study", f"{ROOT}.9") == 0
    assert pull(orthanc.dimse, tmp_path / "seg", "--study", SEG_STUDY) == 0
    sent = by_uid(results / "ct") | {str(dcmread(binary).SOPInstanceUID): binary}
    got = by_uid(tmp_path / "ct") | by_uid(tmp_path / "seg")
    assert set(sent) == set(got)
    for uid, path in sent.items():
        assert_equal(path, got[uid])


def test_a_labelmap_seg_by_dimse_is_kept_bit_equal_though_this_archive_does_not_give_it_back_so(
    orthanc: Orthanc, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Orthanc 1.10.1 knows no Label Map class: it takes it by C-STORE where set so, and refuses it by C-GET."""
    labelmap = results / "seg" / "labelmap.dcm"
    assert push(orthanc.dimse, labelmap) == 0
    said = capsys.readouterr()
    assert said.out == "1 instances stored, 0.0 MB; 0 read back by C-GET and equal, 1 not checked\n"
    assert "not checked" in said.err
    assert "does not give Label Map Segmentation Storage by C-GET. Use its DICOMweb address." in said.err
    (tmp_path / "kept.dcm").write_bytes(orthanc.files()[0])
    assert_equal(labelmap, tmp_path / "kept.dcm")
    assert pull(orthanc.dimse, tmp_path / "out", "--study", SEG_STUDY) == 2
    assert not (tmp_path / "out").exists()
    assert pull(orthanc.web, tmp_path / "out", "--study", SEG_STUDY) == 0


def assert_pulled_is_sent(
    address: str, results: Path, folder: Path, *flags: str, studies: Sequence[str] = STUDIES
) -> None:
    for study in studies:
        assert pull(address, folder / study, "--study", study, *flags) == 0
    sent, got = by_uid(results), by_uid(folder)
    assert set(sent) == set(got)
    for uid, path in sent.items():
        assert_equal(path, got[uid])


@BOTH
def test_pulled_files_are_named_by_their_uids(speaks: str, orthanc: Orthanc, results: Path, tmp_path: Path) -> None:
    push(orthanc.web, results / "ct")
    out = tmp_path / "out"
    assert pull(getattr(orthanc, speaks), out, "--patient-id", "P1", "--modality", "CT") == 0
    expected = {f"{ROOT}.1/{ROOT}.1.{10**7 + 2500 * k}.dcm" for k in range(4)}
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == expected


@BOTH
def test_compressed_pixels_keep_their_transfer_syntax(speaks: str, orthanc: Orthanc, tmp_path: Path) -> None:
    path = ct_series(tmp_path / "ct", slices=1)[0]
    image = dcmread(path)
    image.compress(RLELossless)
    image.save_as(path)
    assert push(getattr(orthanc, speaks), path) == 0
    assert pull(getattr(orthanc, speaks), tmp_path / "out", "--study", f"{ROOT}.9") == 0
    back = dcmread(next((tmp_path / "out").rglob("*.dcm")))
    assert back.file_meta.TransferSyntaxUID == RLELossless
    assert list(generate_fragments(back.PixelData)) == list(generate_fragments(image.PixelData))
    assert np.array_equal(back.pixel_array, image.pixel_array)


def test_another_client_reads_what_was_pushed(orthanc: Orthanc, results: Path) -> None:
    assert push(orthanc.dimse, results / "seg") == 0
    client = DICOMwebClient(orthanc.web, session=create_session_from_user_pass(USER, orthanc.password))
    client._session.trust_env = False
    found = client.retrieve_study(SEG_STUDY)
    client._session.close()
    expected = {str(d.SOPInstanceUID): d for d in map(dcmread, by_uid(results / "seg").values())}
    assert {str(dataset.SOPInstanceUID) for dataset in found} == set(expected)
    for dataset in found:
        assert dataset.PixelData == expected[str(dataset.SOPInstanceUID)].PixelData


@BOTH
def test_what_another_client_stored_is_pulled(speaks: str, orthanc: Orthanc, results: Path, tmp_path: Path) -> None:
    store = ["storescu", "-aet", CALLING, "-aec", AET, "localhost", str(orthanc.dicom), "+sd", str(results / "ct")]
    subprocess.run(store, check=True, timeout=30)
    assert pull(getattr(orthanc, speaks), tmp_path / "out", "--study", f"{ROOT}.9") == 0
    got = by_uid(tmp_path / "out")
    for uid, path in by_uid(results / "ct").items():
        assert_equal(path, got[uid])


@BOTH
def test_pushing_twice_doubles_nothing(speaks: str, orthanc: Orthanc, results: Path) -> None:
    for _ in range(2):
        assert push(getattr(orthanc, speaks), results) == 0
    assert orthanc.count() == 6


def test_the_result_as_json_names_each_instance(
    orthanc: Orthanc, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(orthanc.web, results / "seg", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert {one["sop_instance"] for one in document["stored"]} == set(by_uid(results / "seg"))
    assert {one["checked"] for one in document["stored"]} == {"WADO-RS"}
    assert document["failed"] == {}


@BOTH
def test_several_studies_of_a_patient_are_listed_not_chosen(
    speaks: str, orthanc: Orthanc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    studies = {f"{ROOT}.9.1": "20260102", f"{ROOT}.9.2": "20260304"}
    for number, (study, date) in enumerate(studies.items(), start=1):
        header = {"StudyInstanceUID": study, "StudyDate": date, "StudyDescription": f"CHEST {number}"}
        ct_series(tmp_path / study, slices=2, series=number, **header)
    assert push(orthanc.web, *(tmp_path / study for study in studies)) == 0
    capsys.readouterr()
    assert pull(getattr(orthanc, speaks), tmp_path / "out", "--patient-id", "P1") == 2
    *listed, last = capsys.readouterr().err.splitlines()
    assert sorted(listed) == [f"{ROOT}.9.1  20260102  CT  CHEST 1", f"{ROOT}.9.2  20260304  CT  CHEST 2"]
    assert last.endswith("2 studies match; need one. Give --study with one of the UIDs above.")
    assert not (tmp_path / "out").exists()


@BOTH
def test_one_series_of_a_study_is_pulled_where_one_is_asked_for(
    speaks: str, orthanc: Orthanc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        ct_series(tmp_path / str(number), slices=2, series=number)
    assert push(orthanc.web, tmp_path / "1", tmp_path / "2") == 0
    address, study = getattr(orthanc, speaks), f"{ROOT}.9"
    assert pull(address, tmp_path / "one", "--study", study, "--series", f"{ROOT}.2") == 0
    assert [folder.name for folder in (tmp_path / "one").iterdir()] == [f"{ROOT}.2"]
    assert pull(address, tmp_path / "none", "--study", study, "--series", "1.2.3") == 2
    assert pull(address, tmp_path / "none", "--study", study, "--modality", "MR") == 2
    assert pull(address, tmp_path / "none", "--study", "1.2.3") == 2
    assert pull(address, tmp_path / "none", "--patient-id", "P") == 2
    assert not (tmp_path / "none").exists()
    assert "no series of the study matches; it has CT" in capsys.readouterr().err


@BOTH
def test_a_pull_into_a_taken_folder_changes_nothing(
    speaks: str, orthanc: Orthanc, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(orthanc.web, results / "ct")
    arguments = (getattr(orthanc, speaks), tmp_path / "out", "--study", f"{ROOT}.9")
    assert pull(*arguments) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert pull(*arguments) == 2
    assert "not empty; nothing was changed" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


@BOTH
def test_files_pass_as_streams(speaks: str, orthanc: Orthanc, tmp_path: Path) -> None:
    """20 MB go up and come back through a process that may grow by a fraction of that."""
    pixels = np.random.default_rng(0).integers(0, 4096, (512, 512), np.uint16).tobytes()
    ct_series(tmp_path / "ct", slices=40, Rows=512, Columns=512, PixelData=pixels)
    code = (
        "import resource, sys; from slicestream.__main__ import main; from slicestream import pull, push\n"
        "import slicestream.archive.dicomweb, slicestream.archive.dimse, numpy\n"
        "start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert main(sys.argv[2:5] + [sys.argv[1]]) == 0 and main(sys.argv[5:]) == 0\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)"
    )
    address = getattr(orthanc, speaks)
    up = [str(tmp_path / "ct"), "push", "--to", address]
    down = ["pull", "--from", address, "--study", f"{ROOT}.9", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [os.sys.executable, "-c", code, *up, *down], capture_output=True, text=True, check=True, timeout=120
    )
    assert orthanc.count() == 40
    grown_mib = int(done.stdout.splitlines()[-1]) / 1024
    assert grown_mib < 12, f"{grown_mib:.0f} MiB"
