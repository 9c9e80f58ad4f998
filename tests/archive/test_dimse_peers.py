"""DIMSE archives of other makes: dcmtk's storescp, which only stores, and one that answers as it is told."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt

from archive.orthanc import Orthanc, free_port, listens, need_orthanc
from archive.test_archive_faults import impatient, refused
from archive.test_round_trip import BOTH, pull, push
from ct_files import ROOT, ct_series
from slicestream.__main__ import main
from slicestream.archive.address import parse_address
from slicestream.archive.archive import Access, archive_at
from slicestream.archive.dimse import FIND, GET

STUDY = f"{ROOT}.9"


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    need_orthanc()
    kept, port = tmp_path / "kept", free_port()
    kept.mkdir()
    running = subprocess.Popen([str(shutil.which("storescp")), "-aet", "STORE", "-od", str(kept), "+B", str(port)])
    while not listens(port):
        time.sleep(0.05)
    yield f"dicom://STORE@localhost:{port}", kept
    running.kill()
    running.wait()


def test_an_archive_that_only_stores_gets_all_and_that_it_was_not_checked_is_said(
    storescp: tuple[str, Path], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, kept = storescp
    assert push(address, results / "ct") == 0
    said = capsys.readouterr()
    assert said.out == "4 instances stored, 0.0 MB; 0 read back by C-GET and equal, 4 not checked\n"
    assert said.err.count("not checked") == 4
    stored = [dcmread(path, force=True) for path in kept.iterdir()]
    sent = {str(d.SOPInstanceUID): d for d in map(dcmread, (results / "ct").iterdir())}
    assert {str(d.SOPInstanceUID) for d in stored} == set(sent)
    for dataset in stored:
        assert dataset.PixelData == sent[str(dataset.SOPInstanceUID)].PixelData


def test_an_archive_that_answers_no_questions_cannot_be_pulled_from(
    storescp: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, _ = storescp
    said = refused(capsys, "pull", "--from", address, "--study", "1.2", "--out", tmp_path / "out")
    assert said == f"{address}: does not offer C-FIND to SLICESTREAM"


@contextmanager
def peer(**handlers: Callable[[evt.Event], object]) -> Iterator[str]:
    """A DIMSE archive whose answers are the handlers'."""
    entity = AE(ae_title="PEER")
    for syntax in (FIND, GET):
        entity.add_supported_context(syntax)
    entity.add_supported_context(CTImageStorage, ExplicitVRLittleEndian, scu_role=True, scp_role=True)
    bound = [(getattr(evt, f"EVT_C_{name.upper()}"), handler) for name, handler in handlers.items()]
    port = free_port()
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=bound)
    try:
        yield f"dicom://PEER@localhost:{port}"
    finally:
        server.shutdown()


def answers(**elements: str) -> Callable[[evt.Event], Iterator[tuple[int, Dataset | None]]]:
    def handler(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        found = Dataset()
        found.QueryRetrieveLevel = event.identifier.QueryRetrieveLevel
        for keyword, value in {"StudyInstanceUID": STUDY, **elements}.items():
            setattr(found, keyword, value)
        yield 0xFF00, found

    return handler


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0xA700, "it is out of resources (disk full?): free space there (0xA700)"),
        (0xA900, "the data set does not match its SOP class (0xA900)"),
        (0xB000, "stored, but it changed elements (coercion) (0xB000)"),
        (0xC123, "it cannot understand the data set (0xC123)"),
        (0x0124, "not authorized (0x0124)"),
    ],
)
def test_a_status_other_than_success_is_an_error_that_names_the_instance(
    status: int, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = ct_series(tmp_path / "ct", slices=2)
    statuses = iter([status, 0])
    with peer(store=lambda _: next(statuses), find=answers()) as address:
        assert main(["push", "--to", address, str(tmp_path / "ct")]) == 2
    error = capsys.readouterr().err
    assert f"{first}: {ROOT}.1.10000000: {expected}\n" in error
    assert f"{second}: {ROOT}.1.10002500: was taken, but is not given back" in error


@pytest.mark.parametrize("uid", ["../../key", "1.2/3", ""])
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_name_from_the_archive_that_is_no_uid_never_becomes_a_path(
    uid: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answers(SeriesInstanceUID="1.2.3", SOPInstanceUID=uid, SOPClassUID=CTImageStorage)
    with peer(find=found) as address:
        said = refused(capsys, "pull", "--from", address, "--study", STUDY, "--out", tmp_path / "out")
    assert "as SOPInstanceUID; need a DICOM UID" in said
    assert not (tmp_path / "out").exists()


def test_an_archive_that_does_not_say_the_class_is_left_to_dicomweb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with peer(find=answers(SeriesInstanceUID="1.2.3", SOPInstanceUID="1.2.3.4")) as address:
        said = refused(capsys, "pull", "--from", address, "--study", STUDY, "--out", tmp_path / "out")
    assert said == f"{address}: does not say of what class 1.2.3.4 is. Use DICOMweb."


def test_a_question_that_is_never_answered_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    impatient(monkeypatch)

    def slow(event: evt.Event) -> Iterator[tuple[int, None]]:
        time.sleep(4)
        yield 0x0000, None

    start = time.monotonic()
    with peer(find=slow) as address:
        refused(capsys, "pull", "--from", address, "--study", STUDY, "--out", tmp_path / "out", "--retries", "0")
        assert time.monotonic() - start < 3


@BOTH
def test_more_answers_than_wanted_do_not_answer_the_next_question(
    speaks: str, orthanc: Orthanc, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        ct_series(tmp_path / "all" / str(number), slices=1, series=number, StudyInstanceUID=f"{STUDY}.{number}")
    assert push(orthanc.web, tmp_path / "all") == 0
    address = parse_address(getattr(orthanc, speaks), flag="--from")
    with archive_at(address, Access()) as archive:
        assert len(archive.studies(patient_id="P1", limit=1)) == 1
        assert [one.uid for one in archive.studies(study=f"{STUDY}.2")] == [f"{STUDY}.2"]
        assert [one.count for one in archive.series(f"{STUDY}.3")] == [1]
    assert pull(getattr(orthanc, speaks), tmp_path / "out", "--study", f"{STUDY}.3") == 0
