"""A training set and a model over the link to the Slurm site, beside scp of the same bytes. Needs `make sites`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import site_transfers
from harness import CONTENDERS, Comparison, Contender, faster
from inputs import once

OURS, SCP = "StreamFlow, our plugin", "scp"
# MB of random bytes: 400 slices of 512 × 512 with their masks; the weights of a U-Net of 64 channels
SIZES = {"trial": {"a small file": 1}, "bench": {"training set": 300, "model": 124}}
SIZES["full"] = SIZES["bench"]


def comparisons(size: str, inputs: Path) -> list[Comparison]:
    """Return one per kind of file."""
    up = (site_transfers.BED / "hpc/run-hpc/unshare.pid").exists()
    missing = "" if up else "the sites are not up (make sites)"
    return [_comparison(what, megabytes, inputs, missing) for what, megabytes in SIZES[size].items()]


def _comparison(what: str, megabytes: int, inputs: Path, missing: str) -> Comparison:
    def make(out: Path) -> None:
        (out / "original").write_bytes(os.urandom(10**6) * megabytes)

    original = once(inputs / f"transfer-{megabytes}", make) / "original"
    script = CONTENDERS / "transfer.py"
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    contenders = [
        Contender(
            name=name,
            command=[sys.executable, script, how, original, "{work}"],
            libraries=("slicestream", "streamflow"),
            environment=path,
        )
        for name, how in ((OURS, "streamflow"), (SCP, "scp"))
    ]
    return Comparison(
        name=f"transfers-{what.replace(' ', '-')}",
        how=f"{megabytes} MB of random bytes to the Slurm site of the test bed and back; StreamFlow's time is that of "
        "the two links, checksums at both ends included, as its record has it.",
        unit="MB/s",
        contenders=contenders,
        claims=[faster(f"transfer, {what} of {megabytes} MB", OURS, SCP, 0.9)],
        missing=missing,
    )
