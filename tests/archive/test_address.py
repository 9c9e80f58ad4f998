"""Addresses and credentials: what is let through, and that no secret is ever shown."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from slicestream.__main__ import main
from slicestream.archive.access import authorization, tls_context
from slicestream.archive.address import Address, parse_address
from slicestream.errors import OptionError

WEB = Address(scheme="https", host="archive.example", port=443, path="/dicom-web")


@pytest.mark.parametrize(
    ("text", "expected", "shown"),
    [
        ("https://archive.example/dicom-web/", WEB, "https://archive.example/dicom-web"),
        ("http://localhost:8042/x", Address(scheme="http", host="localhost", port=8042, path="/x"), None),
        ("http://[::1]:8042/x", Address(scheme="http", host="::1", port=8042, path="/x"), None),
        ("dicom://PACS@127.0.0.1:4242", Address(scheme="dicom", host="127.0.0.1", port=4242, aet="PACS"), None),
        ("dicoms://MY_PACS@pacs", Address(scheme="dicoms", host="pacs", port=2762, aet="MY_PACS"), None),
    ],
)
def test_an_address_is_read_and_shown_as_it_was_given(text: str, expected: Address, shown: str | None) -> None:
    found = parse_address(text, flag="--to")
    assert found == expected
    assert str(found) == (shown or text)


@pytest.mark.parametrize(
    "text",
    ["", "archive", "ftp://archive/x", "https://", "https://a:port/x", "dicom://host:104", "dicom://A@host:104/path",
     "dicom://SEVENTEEN_LETTERS@host:104", "https://a/x?y=z", "https://[::1/x", "dicom://A\\B@host"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_the_form_of_one(text: str) -> None:
    with pytest.raises(OptionError, match="need https://host/dicom-web or dicom://AET@host:port"):
        parse_address(text, flag="--to")


@pytest.mark.parametrize("text", ["https://me:s3cret@archive/x", "https://me@archive/x", "dicom://A:s3cret@host:104"])
def test_a_password_in_an_address_is_refused_and_not_repeated(
    text: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", "--to", text, str(results)]) == 2
    error = capsys.readouterr().err
    assert "holds a user or password, which others on this machine can see" in error
    assert "s3cret" not in error


@pytest.mark.parametrize("text", ["http://archive.example/dicom-web", "http://10.0.0.1/x", "dicom://A@pacs:4242"])
def test_names_of_patients_go_to_other_machines_only_encrypted_or_where_that_is_asked_for(text: str) -> None:
    with pytest.raises(OptionError, match=r"not encrypted, and .* is another machine.*add --insecure"):
        parse_address(text, flag="--to")
    assert str(parse_address(text, flag="--to", insecure=True)) == text


def test_credentials_of_the_environment_come_before_those_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    file.write_text("machine archive.example login file password f\n")
    file.chmod(0o600)
    assert authorization(WEB, None) == ""
    assert authorization(WEB, file) == "Basic " + base64.b64encode(b"file:f").decode()
    monkeypatch.setenv("SLICESTREAM_ARCHIVE_USER", "me")
    monkeypatch.setenv("SLICESTREAM_ARCHIVE_PASSWORD", "é:1")
    assert authorization(WEB, file) == "Basic " + base64.b64encode("me:é:1".encode()).decode()
    monkeypatch.setenv("SLICESTREAM_ARCHIVE_TOKEN", "abc.def")
    assert authorization(WEB, file) == "Bearer abc.def"


@pytest.mark.parametrize(
    ("text", "mode", "expected"),
    [
        ("machine archive.example login a password s3cret", 0o640, "mode 0640, others can read the secret in it"),
        ("machine other.example login a password s3cret", 0o600, "nothing for archive.example"),
        ("machine archive.example password s3cret oops s3cret", 0o600, "line 1: not of the form"),
        ("\ud800", 0o600, "cannot be read"),
    ],
)
def test_a_file_of_credentials_that_is_of_no_use_is_refused_without_its_secret(
    text: str, mode: int, expected: str, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    file.chmod(mode)
    with pytest.raises(OptionError, match=expected) as refused:
        authorization(WEB, file)
    assert "s3cret" not in str(refused.value)


def test_half_a_pair_and_a_token_with_a_line_end_are_refused_without_the_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLICESTREAM_ARCHIVE_PASSWORD", "s3cret")
    with pytest.raises(OptionError, match="SLICESTREAM_ARCHIVE_PASSWORD is set, the other is not") as half:
        authorization(WEB, None)
    monkeypatch.setenv("SLICESTREAM_ARCHIVE_TOKEN", "s3cret\nX-Admin: 1")
    with pytest.raises(OptionError, match="need the bare token") as broken:
        authorization(WEB, None)
    assert "s3cret" not in f"{half.value}{broken.value}"


def test_flags_of_tls_without_tls_are_refused() -> None:
    plain = Address(scheme="http", host="localhost", port=80)
    with pytest.raises(OptionError, match="--ca and --cert are of TLS"):
        tls_context(plain, ca=Path("ca.pem"), certificate=None)
