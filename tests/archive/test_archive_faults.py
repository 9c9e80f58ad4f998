"""What goes wrong between us and a real archive: retried where it may pass, one line and exit 2 where it does not."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from archive.archive_wire import relay
from archive.orthanc import AET, Orthanc, free_port
from archive.test_round_trip import BOTH, assert_equal, by_uid, pull, push
from ct_files import ROOT, ct_series
from slicestream.__main__ import main
from slicestream.archive import dimse, http, patience, sending

STUDY = f"{ROOT}.9"


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """20 slices of 128 kB."""
    pixels = np.random.default_rng(1).integers(0, 4096, (256, 256), np.uint16).tobytes()
    ct_series(tmp_path / "big", slices=20, Rows=256, Columns=256, PixelData=pixels)
    return tmp_path / "big"


def through(port: int, speaks: str) -> str:
    return f"http://localhost:{port}/dicom-web" if speaks == "web" else f"dicom://{AET}@localhost:{port}"


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (patience, http, dimse):
        monkeypatch.setattr(module, "ANSWER_S", 1.0)
        monkeypatch.setattr(module, "CONNECT_S", 1.0)


def port_of(orthanc: Orthanc, speaks: str) -> int:
    return orthanc.http if speaks == "web" else orthanc.dicom


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return the last line of stderr of a command that must end with exit code 2, without the name in front."""
    assert main([str(one) for one in arguments]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.splitlines()[-1].split(": ", 1)[1]


@BOTH
def test_a_connection_cut_in_the_middle_of_a_push_is_made_again_and_nothing_is_doubled(
    speaks: str, orthanc: Orthanc, big: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sending, "BATCH_BYTES", 600_000)  # 4 slices a request
    with relay(port_of(orthanc, speaks), cut_after=1_500_000) as between:
        assert push(through(between.port, speaks), big) == 0
        assert between.cuts == 1
        # 2.6 MB once, and at most one batch of 0.6 MB again
        assert sum(between.passed) < 3_300_000
    assert "again in 0 s (1 of 4)" in capsys.readouterr().err
    assert orthanc.count() == 20


def test_what_arrived_before_the_answer_was_lost_is_not_sent_again(
    orthanc: Orthanc, big: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = sum(path.stat().st_size for path in big.iterdir())
    with relay(orthanc.http, cut_after=500, upwards=False) as between:  # within the answer to the STOW
        assert push(f"http://localhost:{between.port}/dicom-web", big) == 0
        assert between.cuts == 1
        assert size < sum(between.passed) < size + 200_000
    assert orthanc.count() == 20


@BOTH
def test_an_archive_killed_in_the_middle_of_a_push_and_started_again_gets_the_rest(
    speaks: str, another: Callable[..., Orthanc], big: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BATCH_BYTES", 600_000)
    orthanc = another()

    def restart() -> None:
        orthanc.stop(signal.SIGKILL)
        orthanc.start()

    with relay(port_of(orthanc, speaks), cut_after=1_500_000, on_cut=restart) as between:
        assert push(through(between.port, speaks), big, "--retries", "8") == 0
        assert between.cuts == 1
    assert orthanc.count() == 20


@BOTH
def test_a_connection_cut_in_the_middle_of_a_pull_is_made_again(
    speaks: str, orthanc: Orthanc, big: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(orthanc.web, big)
    with relay(port_of(orthanc, speaks), cut_after=1_000_000, upwards=False) as between:
        assert pull(through(between.port, speaks), tmp_path / "out", "--study", STUDY) == 0
        assert between.cuts == 1
    got = by_uid(tmp_path / "out")
    for uid, path in by_uid(big).items():
        assert_equal(path, got[uid])


@BOTH
def test_a_pull_that_fails_for_good_leaves_nothing(
    speaks: str, another: Callable[..., Orthanc], big: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orthanc = another()
    push(orthanc.web, big)
    with relay(port_of(orthanc, speaks), cut_after=1_000_000, upwards=False, on_cut=orthanc.stop) as between:
        address = through(between.port, speaks)
        said = refused(capsys, "pull", "--from", address, "--study", STUDY, "--out", tmp_path / "out", "--retries", "1")
    assert said.startswith(f"{address}: ")
    assert said.endswith("tried 2 times. Check the address and that the archive runs, then run again.")
    assert not (tmp_path / "out").exists()


@BOTH
def test_an_archive_that_falls_silent_is_given_up(
    speaks: str, orthanc: Orthanc, big: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    impatient(monkeypatch)
    start = time.monotonic()
    with relay(port_of(orthanc, speaks), cut_after=500_000, stall=True) as between:
        address = through(between.port, speaks)
        code = main(["push", "--to", address, str(big), "--retries", "0"])
    assert code == 2
    assert "tried 1 times" in capsys.readouterr().err
    assert time.monotonic() - start < 10


@BOTH
def test_an_archive_that_falls_silent_in_the_middle_of_an_answer_is_given_up(
    speaks: str, orthanc: Orthanc, big: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    push(orthanc.web, big)
    impatient(monkeypatch)
    start, out = time.monotonic(), big.parent / "out"
    with relay(port_of(orthanc, speaks), cut_after=500_000, upwards=False, stall=True) as between:
        address = through(between.port, speaks)
        said = refused(capsys, "pull", "--from", address, "--study", STUDY, "--out", out, "--retries", "0")
    assert "tried 1 times" in said
    assert time.monotonic() - start < 10
    assert not out.exists()


@BOTH
def test_a_slow_line_is_waited_for_as_long_as_it_moves(
    speaks: str, orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(1).integers(0, 4096, (512, 512), np.uint16).tobytes()
    path = ct_series(tmp_path / "ct", slices=1, Rows=512, Columns=512, PixelData=pixels)[0]
    assert push(orthanc.web, path) == 0
    impatient(monkeypatch)
    start = time.monotonic()
    with relay(port_of(orthanc, speaks), pause_s=0.08) as between:
        address = through(between.port, speaks)
        assert pull(address, tmp_path / "out", "--study", STUDY, "--retries", "0") == 0
    assert time.monotonic() - start > 2 * dimse.ANSWER_S  # longer than any silence that is borne


@BOTH
def test_a_stopped_archive_is_named_in_one_line(speaks: str, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = through(free_port(), speaks)
    said = refused(capsys, "push", "--to", address, results, "--retries", "0")
    assert said == (
        f"{address}: refuses the connection; tried 1 times. Check the address and that the archive runs, "
        "then run again."
    )


@pytest.mark.parametrize("scheme", ["https://nowhere.invalid/dicom-web", "dicoms://A@nowhere.invalid:104"])
def test_an_unknown_host_is_named_and_not_tried_again(
    scheme: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "push", "--to", scheme, results)
    assert said.endswith(": no host of the name nowhere.invalid. Check the address.")


def test_a_wrong_password_and_none_are_told_apart_and_never_shown(
    orthanc: Orthanc, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLICESTREAM_ARCHIVE_PASSWORD", "wrong-secret")
    said = refused(capsys, "push", "--to", orthanc.web, results)
    assert said.startswith(f"{orthanc.web}: refuses the credentials (HTTP 401); need ")
    assert "wrong-secret" not in said
    for name in ("USER", "PASSWORD"):
        monkeypatch.delenv(f"SLICESTREAM_ARCHIVE_{name}")
    assert refused(capsys, "push", "--to", orthanc.web, results).startswith(f"{orthanc.web}: asks for credentials")
    assert orthanc.count() == 0


def test_the_password_of_a_private_netrc_opens_the_archive(
    orthanc: Orthanc, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("USER", "PASSWORD"):
        monkeypatch.delenv(f"SLICESTREAM_ARCHIVE_{name}")
    file = tmp_path / "home" / ".netrc"
    file.parent.mkdir()
    file.write_text(f"machine localhost login laptop password {orthanc.password}\n")
    file.chmod(0o644)
    said = refused(capsys, "push", "--to", orthanc.web, results)
    assert said == f"{file}: mode 0644, others can read the secret in it; need 0600. chmod 600 {file}"
    file.chmod(0o600)
    assert push(orthanc.web, results) == 0


def test_a_path_that_is_no_dicomweb_is_named(
    orthanc: Orthanc, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "push", "--to", orthanc.web.replace("dicom-web", "pacs"), results)
    assert "HTTP 404 for /studies; need the root of DICOMweb" in said


def test_titles_that_the_archive_does_not_know_are_named(
    orthanc: Orthanc, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = orthanc.dimse.replace(AET, "OTHER")
    assert refused(capsys, "push", "--to", wrong, results) == (
        f"{wrong}: knows no AE title 'OTHER'. Check the part before the @, in upper and lower case."
    )
    said = refused(capsys, "push", "--to", orthanc.dimse, results, "--aet", "STRANGER")
    assert said == (
        f"{orthanc.dimse}: does not know our AE title 'STRANGER'. Have it added there, or give another with --aet."
    )
    assert orthanc.count() == 0


def test_an_archive_that_aborts_whom_it_does_not_know_is_named(
    another: Callable[..., Orthanc], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orthanc = another(DicomAlwaysAllowEcho=True)  # Orthanc then accepts every association, and aborts what goes beyond
    said = refused(capsys, "push", "--to", orthanc.dimse, results, "--aet", "STRANGER", "--retries", "1")
    assert said.startswith(
        f"{orthanc.dimse}: aborts the association; may 'STRANGER', our AE title, do that there?; tried 2 times."
    )


def test_an_archive_that_takes_no_labelmap_is_named_and_keeps_the_rest(
    another: Callable[..., Orthanc], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orthanc = another()  # as Debian configures it
    assert main(["push", "--to", orthanc.dimse, str(results)]) == 2
    said = capsys.readouterr()
    uid = dcmread(results / "seg/labelmap.dcm").SOPInstanceUID
    assert (
        f"labelmap.dcm: {uid}: it takes no Label Map Segmentation Storage in Explicit VR Little Endian "
        "(no presentation context)"
    ) in said.err
    assert "1 of 6 instances are not there as they were sent" in said.err.splitlines()[-1]
    assert said.out == "5 instances stored, 0.0 MB; 5 read back by C-GET and equal\n"
    assert orthanc.count() == 5


@BOTH
def test_a_full_disk_of_the_archive_is_an_error_that_names_the_instances(
    speaks: str, another: Callable[..., Orthanc], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orthanc = another(file_limit_kib=400)
    pixels = bytes(2 * 512 * 512)
    path = ct_series(tmp_path / "ct", slices=1, Rows=512, Columns=512, PixelData=pixels)[0]
    assert main(["push", "--to", getattr(orthanc, speaks), str(path), "--retries", "1"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert str(dcmread(path).SOPInstanceUID) in error
    assert error.splitlines()[-1].startswith("slicestream push: ")


def test_an_archive_that_kept_another_file_of_that_uid_is_found_out(
    orthanc: Orthanc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ct_series(tmp_path / "ct", slices=1)[0]
    assert push(orthanc.web, path) == 0
    image = dcmread(path)
    image.PixelData = image.PixelData[:-2] + b"\1\0"
    image.save_as(path)
    assert main(["push", "--to", orthanc.web, str(path)]) == 2
    error = capsys.readouterr().err
    assert f"{path}: {image.SOPInstanceUID}: the archive's copy is not what was sent: PixelData differs" in error


def test_an_archive_that_drops_what_it_said_to_have_taken_is_found_out(
    another: Callable[..., Orthanc], results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "filter.lua"
    script.write_text("function ReceivedInstanceFilter(dicom, origin) return dicom.Modality ~= 'SEG' end\n")
    orthanc = another(LuaScripts=[str(script)])
    assert main(["push", "--to", orthanc.web, str(results / "ct"), str(results / "seg/binary.dcm")]) == 2
    said = capsys.readouterr()
    assert f"binary.dcm: {dcmread(results / 'seg/binary.dcm').SOPInstanceUID}: " in said.err
    assert said.out == "4 instances stored, 0.0 MB; 4 read back by WADO-RS and equal\n"
    assert orthanc.count() == 4


def test_a_full_disk_here_leaves_nothing_of_a_pull(orthanc: Orthanc, big: Path, tmp_path: Path) -> None:
    push(orthanc.web, big)
    for address in (orthanc.web, orthanc.dimse):
        code = (
            "import resource, signal, sys; from slicestream.__main__ import main\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100000,) * 2)\n"
            "sys.exit(main(sys.argv[1:]))"
        )
        out = tmp_path / "out"
        done = subprocess.run(
            [sys.executable, "-c", code, "pull", "--from", address, "--study", STUDY, "--out", str(out)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert "File too large" in done.stderr, done.stderr
        assert not out.exists()


@BOTH
def test_ctrl_c_ends_at_once_and_leaves_nothing(speaks: str, orthanc: Orthanc, big: Path, tmp_path: Path) -> None:
    push(orthanc.web, big)
    with relay(port_of(orthanc, speaks), cut_after=1_000_000, upwards=False, stall=True) as between:
        command = [sys.executable, "-m", "slicestream", "pull", "--from", through(between.port, speaks)]
        with subprocess.Popen(
            [*command, "--study", STUDY, "--out", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True
        ) as running:
            try:
                end = time.monotonic() + 60
                while not between.cuts and time.monotonic() < end:
                    time.sleep(0.05)
                assert between.cuts
                time.sleep(0.3)  # so that it waits for more
                start = time.monotonic()
                running.send_signal(signal.SIGINT)
                _, error = running.communicate(timeout=30)
            finally:
                running.kill()
    assert running.returncode == 130, error
    assert error.splitlines()[-1] == "slicestream pull: interrupted"
    assert "Traceback" not in error
    assert time.monotonic() - start < 20  # not the 60 s that an answer is waited for
    assert not (tmp_path / "out").exists()
