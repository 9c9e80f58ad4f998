"""Encrypted ways to a real archive: the right authority opens them, another closes them.

DICOM over TLS is Orthanc's own. HTTPS is that of a proxy before it: Debian 12's Orthanc 1.10.1 dies at its first HTTPS
connection (civetweb 1.15 with OpenSSL 3).
"""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archive.archive_wire import tls_before
from archive.orthanc import Orthanc
from archive.test_archive_faults import refused
from archive.test_round_trip import BOTH, STUDIES, assert_pulled_is_sent, push


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)


def authority(folder: Path, name: str) -> Path:
    """Make an authority; return its certificate, the key beside it."""
    subject = ["-subj", f"/CN={name}", "-days", "2", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    openssl("req", "-x509", *subject, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt")
    return folder / f"{name}.crt"


def certificate(by: Path, name: str, host: str = "localhost") -> Path:
    """Make a certificate for a host; return it with its key in one file, mode 0600."""
    folder = by.parent
    request, key, out, both = (folder / f"{name}.{suffix}" for suffix in ("csr", "key", "crt", "pem"))
    openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
    (folder / "san").write_text(f"subjectAltName=DNS:{host}\n")
    signed = ["-CA", by, "-CAkey", by.with_suffix(".key"), "-CAcreateserial", "-days", "2", "-extfile", folder / "san"]
    openssl("x509", "-req", "-in", request, "-out", out, *signed)
    both.write_text(out.read_text() + key.read_text())
    both.chmod(0o600)
    return both


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    ca = authority(folder, "ca")
    authority(folder, "wrong")
    certificate(ca, "server")
    certificate(ca, "client")
    certificate(ca, "elsewhere", host="archive.example")
    return folder


@pytest.fixture(scope="module")
def encrypted(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    settings = encryption(certificates, "server")
    running = Orthanc(tmp_path_factory.mktemp("orthanc"), {**settings, "UnknownSopClassAccepted": True})
    try:
        with tls_before(running.http, served(certificates, "server")) as running.https:
            yield running.start()
    finally:
        running.stop()


def served(certificates: Path, server: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{server}.pem")
    return context


def encryption(certificates: Path, server: str) -> dict[str, object]:
    return {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(certificates / f"{server}.crt"),
        "DicomTlsPrivateKey": str(certificates / f"{server}.key"),
        "DicomTlsTrustedCertificates": str(certificates / "ca.crt"),
        "DicomTlsRemoteCertificateRequired": True,
    }


@pytest.fixture
def orthanc(encrypted: Orthanc, sign_in: Callable[[Orthanc], Orthanc]) -> Orthanc:
    return sign_in(encrypted)


def flags(certificates: Path, ca: str = "ca") -> list[str]:
    return ["--ca", str(certificates / f"{ca}.crt"), "--cert", str(certificates / "client.pem")]


def test_push_and_pull_over_https(orthanc: Orthanc, results: Path, certificates: Path, tmp_path: Path) -> None:
    assert orthanc.web.startswith("https://")
    trusted = flags(certificates)[:2]
    assert push(orthanc.web, results, *trusted) == 0
    assert_pulled_is_sent(orthanc.web, results, tmp_path, *trusted)


def test_push_and_pull_over_dicom_tls_with_a_certificate_of_our_own(
    orthanc: Orthanc, results: Path, certificates: Path, tmp_path: Path
) -> None:
    assert orthanc.dimse.startswith("dicoms://")
    assert push(orthanc.dimse, results / "ct", *flags(certificates)) == 0
    assert_pulled_is_sent(orthanc.dimse, results / "ct", tmp_path, *flags(certificates), studies=STUDIES[:1])


@BOTH
def test_a_certificate_by_another_authority_is_refused_in_one_line(
    speaks: str, orthanc: Orthanc, results: Path, certificates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = getattr(orthanc, speaks)
    for given in ([], ["--ca", certificates / "wrong.crt"]):  # the system's, and one of no use
        refused_by_name(refused(capsys, "push", "--to", address, results, *given), address)


def refused_by_name(said: str, address: str) -> None:
    assert said.startswith(f"{address}: its certificate is not trusted (")
    assert "unable to get local issuer certificate" in said or "self-signed certificate in certificate chain" in said
    assert said.endswith("Give the archive's authority with --ca.")


@BOTH
def test_a_certificate_for_another_host_is_refused(
    speaks: str,
    another: Callable[..., Orthanc],
    results: Path,
    certificates: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    orthanc = another(**encryption(certificates, "elsewhere"))
    with tls_before(orthanc.http, served(certificates, "elsewhere")) as orthanc.https:
        said = refused(capsys, "push", "--to", getattr(orthanc, speaks), results, *flags(certificates))
    assert "Hostname mismatch, certificate is not valid for 'localhost'" in said


def test_an_archive_that_asks_for_our_certificate_says_so(
    orthanc: Orthanc, results: Path, certificates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "push", "--to", orthanc.dimse, results, *flags(certificates)[:2], "--retries", "0")
    assert "--cert" in said


@BOTH
def test_tls_to_a_port_without_it_is_told(
    speaks: str,
    server: Orthanc,
    results: Path,
    certificates: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scheme, rest = getattr(server, speaks).split("://")
    address = f"{scheme}s://{rest}"
    said = refused(capsys, "push", "--to", address, results, *flags(certificates), "--retries", "0")
    assert said.startswith(f"{address}: ")
    assert "TLS" in said


@pytest.mark.parametrize(
    ("flag", "mode", "expected"),
    [
        ("--ca", 0o644, "no certificate in PEM form"),
        ("--cert", 0o600, "need a PEM file with a certificate and its key"),
        ("--cert", 0o644, "others can read the secret in it; need 0600"),
    ],
)
def test_files_that_are_no_certificates_are_refused(
    flag: str, mode: int, expected: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path.home()
    file.write_text("no certificate")
    file.chmod(mode)
    assert expected in refused(capsys, "push", "--to", "https://localhost/dicom-web", results, flag, file)


def test_a_key_with_a_passphrase_is_refused_and_not_asked_for(
    results: Path, certificates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    locked = certificates / "locked.pem"
    openssl("rsa", "-aes256", "-passout", "pass:secret", "-in", certificates / "client.key", "-out", locked)
    locked.write_text((certificates / "client.crt").read_text() + locked.read_text())
    locked.chmod(0o600)
    said = refused(capsys, "push", "--to", "https://localhost/dicom-web", results, "--cert", locked)
    assert "the key has a passphrase" in said
