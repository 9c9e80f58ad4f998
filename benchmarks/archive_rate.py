"""How fast push and pull are beside dcmtk's storescu and getscu, at one Orthanc, in one run.

PYTHONPATH=steps:tests python benchmarks/archive_rate.py [SLICES] [ROUNDS]

Each round does all of them in turn on 512 x 512 slices of noise, with an empty archive before each that stores. push is
timed without and with its reading back. Prints the median of the rounds, and the ratio to dcmtk's.
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from archive.orthanc import AET, CALLING, USER, Orthanc
from ct_files import ROOT, ct_slice
from slicestream.__main__ import main
from slicestream.archive.address import parse_address
from slicestream.archive.archive import Access, archive_at
from slicestream.archive.instances import local_files


def make(folder: Path, slices: int) -> float:
    """Write the series; return its MB."""
    noise = np.random.default_rng(0)
    for k in range(slices):
        pixels = noise.integers(0, 4096, (512, 512), np.uint16).tobytes()
        ct_slice(folder / f"{k}.dcm", z_mm=2.5 * k, Rows=512, Columns=512, PixelData=pixels)
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


def store_only(address: str, folder: Path) -> None:
    files, _ = local_files([folder])
    with archive_at(parse_address(address, flag="--to"), Access()) as archive:
        for start in range(0, len(files), 100):
            assert not archive.store(files[start : start + 100], set())


def command(*arguments: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main(list(arguments)) == 0


def contestants(orthanc: Orthanc, folder: Path, scratch: Path) -> dict[str, Callable[[], object]]:
    node = ["-aet", CALLING, "-aec", AET, "localhost", str(orthanc.dicom)]
    study = f"{ROOT}.9"

    def fresh(name: str) -> str:
        return str(Path(tempfile.mkdtemp(dir=scratch)) / name)

    def run(*arguments: str) -> None:
        subprocess.run(arguments, check=True, capture_output=True)

    query = ["-S", "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
    return {
        "storescu": lambda: run("storescu", *node, "+sd", str(folder)),
        "C-STORE of push": lambda: store_only(orthanc.dimse, folder),
        "STOW-RS of push": lambda: store_only(orthanc.web, folder),
        "push dicom://": lambda: command("push", "--to", orthanc.dimse, str(folder)),
        "push http://": lambda: command("push", "--to", orthanc.web, str(folder)),
        "getscu": lambda: run("getscu", *node, *query, "-od", tempfile.mkdtemp(dir=scratch)),
        "pull dicom://": lambda: command("pull", "--from", orthanc.dimse, "--study", study, "--out", fresh("out")),
        "pull http://": lambda: command("pull", "--from", orthanc.web, "--study", study, "--out", fresh("out")),
    }


def measure(slices: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        megabytes = make(scratch / "ct", slices)
        orthanc = Orthanc(scratch / "orthanc", {}).start()
        os.environ.update(SLICESTREAM_ARCHIVE_USER=USER, SLICESTREAM_ARCHIVE_PASSWORD=orthanc.password)
        try:
            rates: dict[str, list[float]] = {}
            for _ in range(rounds):
                for what, act in contestants(orthanc, scratch / "ct", scratch).items():
                    if "pull" not in what and what != "getscu":
                        orthanc.empty()
                    start = time.monotonic()
                    act()
                    rates.setdefault(what, []).append(megabytes / (time.monotonic() - start))
                    assert orthanc.count() == slices
        finally:
            orthanc.stop()
    print(f"{slices} slices, {megabytes:.0f} MB, median of {rounds} rounds")
    middle = {what: statistics.median(found) for what, found in rates.items()}
    for what, rate in middle.items():
        peer = "getscu" if what == "getscu" or "pull" in what else "storescu"
        print(f"{what:16} {rate:7.1f} MB/s  {rate / middle[peer]:5.2f} of {peer}")


if __name__ == "__main__":
    measure(int(sys.argv[1]) if sys.argv[1:] else 300, int(sys.argv[2]) if sys.argv[2:] else 3)
