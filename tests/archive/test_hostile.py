"""An archive that lies, leads astray or floods: what no real one here does, so a false one plays it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from archive.archive_wire import false_archive
from archive.test_archive_faults import refused
from ct_files import ROOT, ct_series, ct_slice
from slicestream.__main__ import main
from slicestream.archive import dicomweb, http, patience

JSON = {"Content-Type": "application/dicom+json"}
Answer = tuple[int, dict[str, str], bytes]
STUDY = f"{ROOT}.9"


def listed(**elements: str) -> bytes:
    tags = {"study": "0020000D", "series": "0020000E", "uid": "00080018", "count": "00201209", "patient": "00100020"}
    return json.dumps([{tags[name]: {"vr": "UI", "Value": [value]} for name, value in elements.items()}]).encode()


def multipart(path: Path) -> Answer:
    content = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + path.read_bytes() + b"\r\n--b--\r\n"
    return 200, {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}, content


def archive_of(path: Path, **changed: bytes) -> object:
    """Answer as an archive of one study, series and instance; `changed` replaces a kind of answer."""

    def answer(_method: str, where: str) -> Answer:
        kind = where.partition("?")[0].removeprefix("/dicom-web/").split("/")[::2][-1]
        if kind == "instances" and "?" not in where:
            return multipart(path)
        uid = {"uid": f"{ROOT}.1.10000000"}
        texts = {
            "studies": listed(study=STUDY, patient="P1"),
            "series": listed(series=f"{ROOT}.1", count="1"),
            "instances": listed(**uid),
        }
        return 200, JSON, {**texts, **changed}[kind]

    return answer


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return ct_slice(tmp_path / "image.dcm", z_mm=0)


def pulled(answer: object, out: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    with false_archive(answer) as archive:  # type: ignore[arg-type]
        said = refused(capsys, "pull", "--from", archive.url, "--study", STUDY, "--out", out, "--retries", "0", *flags)
    assert not out.exists()
    return said.partition(": ")[2]


def test_the_false_archive_gives_what_a_true_one_does(image: Path, tmp_path: Path) -> None:
    with false_archive(archive_of(image)) as archive:
        assert main(["pull", "--from", archive.url, "--study", STUDY, "--out", str(tmp_path / "out")]) == 0
    assert next((tmp_path / "out").rglob("*.dcm")).read_bytes() == image.read_bytes()


@pytest.mark.parametrize(
    "uid", ["../../../home/key", "/etc/cron.d/x", "1.2.3/../..", "1.2\n3", "1" * 65, "", "..", "1..2"]
)
@pytest.mark.parametrize("kind", ["series", "instances"])
def test_a_name_that_is_no_uid_never_becomes_a_path(
    kind: str, uid: str, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    field = {"series": "series", "instances": "uid"}[kind]
    said = pulled(archive_of(image, **{kind: listed(**{field: uid})}), tmp_path / "out", capsys)
    assert "need a DICOM UID" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"series": listed(series=f"{ROOT}.1", count="2")}, "lists 1 instances but counts 2; still receiving?"),
        ({"instances": b"[]"}, "lists 0 instances but counts 1"),
        ({"instances": listed(uid="1.2.3")}, "asked for instance 1.2.3, got another"),
        ({"studies": b"[]"}, "no study matches"),
        ({"studies": listed(study="1.2.3", patient="P2")}, "no study matches"),
        ({"studies": b"<html>"}, "answers with no JSON"),
        ({"studies": b'{"a": 1}'}, "answers with other than a list"),
        ({"studies": b"[[[["}, "answers with no JSON"),
    ],
)
def test_answers_that_do_not_fit_are_refused(
    changed: dict[str, bytes], expected: str, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in pulled(archive_of(image, **changed), tmp_path / "out", capsys)


def test_an_answer_without_an_end_is_cut_off(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dicomweb, "LARGEST_INSTANCE", 400)
    assert "answers with an instance of over 400 bytes" in pulled(archive_of(image), tmp_path / "out", capsys)
    monkeypatch.setattr(http, "LONGEST_JSON", 10)
    assert "gives an answer of over 10 bytes" in pulled(archive_of(image), tmp_path / "out", capsys)


def test_an_answer_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    pace = patience.Pace()
    pace.add(1)
    now[0] = patience.ANSWER_S + 1
    with pytest.raises(patience.TransientError, match="only 2 bytes in 61 s"):
        pace.add(1)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_and_takes_no_credentials_along(
    status: int, image: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLICESTREAM_ARCHIVE_USER", "me")
    monkeypatch.setenv("SLICESTREAM_ARCHIVE_PASSWORD", "s3cret")
    with false_archive(archive_of(image)) as elsewhere:  # type: ignore[arg-type]
        location = {"Location": elsewhere.url.replace("http://", "http://a:b@") + "/studies?x=y"}
        with false_archive(lambda *_: (status, location, b"")) as archive:
            said = refused(capsys, "push", "--to", archive.url, image)
            assert archive.requests[0][2]["Authorization"].startswith("Basic ")
        assert elsewhere.requests == []
    assert said.endswith(f"leads on to '{elsewhere.url}/studies'; not followed. Give that address if you trust it.")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_overload_is_waited_for_as_long_as_asked(
    status: int, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", pauses.append)
    busy = iter([True, True])
    good = archive_of(image)

    def answer(method: str, where: str) -> Answer:
        return (status, {"Retry-After": "7"}, b"busy") if next(busy, False) else good(method, where)  # type: ignore[operator]

    with false_archive(answer) as archive:
        assert main(["pull", "--from", archive.url, "--study", STUDY, "--out", str(tmp_path / "out")]) == 0
    assert pauses == [7, 7]
    assert f"HTTP {status} (busy); again in 7 s (1 of 4)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "expected"),
    [(403, "forbids this user"), (413, "HTTP 413 (no). Its limit"), (415, "HTTP 415"), (507, "It is full: free space")],
)
def test_a_refusal_for_good_is_not_tried_again(
    status: int, expected: str, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with false_archive(lambda method, _: (status, {}, b"no") if method == "POST" else (200, JSON, b"[]")) as archive:
        assert expected in refused(capsys, "push", "--to", archive.url, image)
        assert [method for method, *_ in archive.requests] == ["GET", "POST"]


def test_a_partial_failure_names_the_instance_and_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = ct_series(tmp_path / "ct", slices=3)
    uids = [f"{ROOT}.1.{10**7 + 2500 * k}" for k in range(3)]
    answer = {
        "00081198": {"Value": [{"00081155": {"Value": [uids[0]]}, "00081197": {"Value": [0xA700]}}]},
        "00081199": {
            "Value": [
                {"00081155": {"Value": [uids[1]]}, "00081196": {"Value": [0xB000]}},
                {"00081155": {"Value": [uids[2]]}},
            ]
        },
    }

    def archive_answers(method: str, where: str) -> Answer:
        if method == "POST":
            return 202, JSON, json.dumps(answer).encode()
        return multipart(third) if "instances/" in where else (200, JSON, b"[]")

    with false_archive(archive_answers) as archive:
        assert main(["push", "--to", archive.url, str(tmp_path / "ct")]) == 2
    said = capsys.readouterr()
    assert f"{first}: {uids[0]}: it is out of resources (disk full?): free space there (0xA700)\n" in said.err
    assert f"{second}: {uids[1]}: stored, but it changed elements (coercion) (0xB000)\n" in said.err
    assert said.out.startswith("1 instances stored, ")
    assert "2 of 3 instances are not there as they were sent" in said.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--study", "../x"], "--study ../x: no DICOM UID"),
        (["--study", "1.2", "--series", "x"], "--series x: no DICOM UID"),
        (["--patient-id", "P*"], "--patient-id: holds *"),
        (["--study", "1.2", "--patient-id", "P"], "need --study or --patient-id, one of the two"),
        ([], "need --study or --patient-id, one of the two"),
    ],
)
def test_a_question_that_could_mean_others_is_not_asked(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = "http://localhost:1/dicom-web"
    assert main(["pull", "--from", address, "--out", str(tmp_path / "out"), *arguments]) == 2
    assert expected in capsys.readouterr().err
