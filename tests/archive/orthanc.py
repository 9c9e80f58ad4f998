"""A real Orthanc (Debian packages orthanc and orthanc-dicomweb), started for the tests on free ports."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PLUGIN = "libOrthancDicomWeb.so"
PLUGINS = [Path("/usr/share/orthanc/plugins"), Path("/usr/lib/orthanc/plugins")]
AET, CALLING, USER = "ARCHIVE", "SLICESTREAM", "laptop"
START_S = 30


def need_orthanc() -> Path:
    """Return the folder of Orthanc's DICOMweb plugin; skip, with the reason, where there is none. In CI a failure."""
    found = next((folder for folder in PLUGINS if (folder / PLUGIN).exists()), None)
    if shutil.which("Orthanc") and shutil.which("storescu") and found:
        return found
    reason = "no Orthanc here; apt-get install orthanc orthanc-dicomweb dcmtk brings it"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Orthanc:
    """One server with a storage of its own. `settings` override those of `configuration`."""

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    file_limit_kib: int = 0  # that a file of it may have: its disk is full from there on; 0 for none
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    http: int = field(default_factory=free_port)
    dicom: int = field(default_factory=free_port)
    https: int = 0  # port of a reverse proxy before it
    process: subprocess.Popen[bytes] | None = None

    @property
    def web(self) -> str:
        return f"https://localhost:{self.https}/dicom-web" if self.https else f"http://localhost:{self.http}/dicom-web"

    @property
    def dimse(self) -> str:
        return f"dicom{'s' if self.settings.get('DicomTlsEnabled') else ''}://{AET}@localhost:{self.dicom}"

    def configuration(self, plugins: Path) -> dict[str, Any]:
        return {
            "Name": "test",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [str(plugins / PLUGIN)],
            "HttpPort": self.http,
            "DicomPort": self.dicom,
            "DicomAet": AET,
            "DicomCheckCalledAet": True,
            "DicomModalities": {"laptop": [CALLING, "127.0.0.1", free_port()]},
            "DicomAlwaysAllowEcho": False,
            "DicomAlwaysAllowStore": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: self.password},
            "SyncStorageArea": False,  # of the test's time
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
            **self.settings,
        }

    def start(self) -> Orthanc:
        plugins = need_orthanc()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "orthanc.json"
        path.write_text(json.dumps(self.configuration(plugins)))
        log = (self.folder / "log").open("ab")
        # a write beyond the limit fails, as on a full disk, and kills nobody
        limited = f"trap '' XFSZ; ulimit -f {self.file_limit_kib}; " if self.file_limit_kib else ""
        self.process = subprocess.Popen(
            ["bash", "-c", f'{limited}exec Orthanc "$0"', str(path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        log.close()
        end = time.monotonic() + START_S
        while not all(map(listens, (self.http, self.dicom))):
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < end, "Orthanc does not come up"
            time.sleep(0.05)
        return self

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(timeout=30)
            self.process = None

    def rest(self, path: str, method: str = "GET") -> Any:
        """Return what Orthanc's own interface, which is not DICOMweb, says."""
        request = urllib.request.Request(f"http://localhost:{self.http}{path}", method=method)
        request.add_header("Authorization", f"Basic {base64.b64encode(f'{USER}:{self.password}'.encode()).decode()}")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            content = answer.read()
        return content if path.endswith("/file") else json.loads(content)

    def empty(self) -> None:
        for patient in self.rest("/patients"):
            self.rest(f"/patients/{patient}", "DELETE")

    def files(self) -> list[bytes]:
        """Return every stored file, as it was stored."""
        return [self.rest(f"/instances/{one}/file") for one in self.rest("/instances")]

    def count(self) -> int:
        return int(self.rest("/statistics")["CountInstances"])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
