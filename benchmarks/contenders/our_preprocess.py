"""Ours: `slicestream preprocess`, all of it, in one process or a share each in several.

python our_preprocess.py COHORT OUT PROCESSES [CORES]

With CORES each process, and what it starts, is held to so many cores.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path

from stopwatch import timed

import slicestream.preprocess  # noqa: F401  imported before the time is taken, as the peers' libraries are
from slicestream.__main__ import main
from slicestream.dicom.decoder import shared_decoders


def share(cohort: Path, out: Path, number: int, count: int) -> None:
    """Do one share; the exit code is the step's."""
    if cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[(number - 1) * cores : number * cores])
    out.mkdir(parents=True)
    (out / "key").write_text("a key for comparisons only\n")
    words = ["--cohort", cohort, "--pseudonym-key", out / "key", "--share", f"{number}/{count}", "--out", out / "made"]
    status = main(["preprocess", *map(str, words)])
    shared_decoders().close()  # so that its CPU time is counted as ours
    sys.exit(status)


cohort, out, processes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
cores = int(sys.argv[4]) if len(sys.argv) > 4 else 0
slices = sum(1 for path in cohort.rglob("*.dcm"))
with timed(slices):
    jobs = [
        multiprocessing.get_context("fork").Process(target=share, args=(cohort, out / str(n), n, processes))
        for n in range(1, processes + 1)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
assert all(job.exitcode == 0 for job in jobs)
found = [json.loads(path.read_text())["series"] for path in out.glob("*/made/series-*.json")]
made = sum(series["slices"] for share_of in found for series in share_of)
assert made == slices, f"{made} of {slices} slices"
