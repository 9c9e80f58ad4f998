"""What the engines themselves take: a chain of ten steps, a scatter over twenty, of a tool that copies a small file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import yaml
from harness import ROOT, TOIL, Comparison, Contender, faster
from inputs import once

FOLDER = ROOT / "benchmarks" / "workflows"
STREAMFLOW, CWLTOOL, TOIL_NAME = "StreamFlow, our plugin", "cwltool", "toil"
WIDTH = {"trial": 3, "bench": 20, "full": 20}
BIN = Path(sys.executable).parent


def comparisons(size: str, inputs: Path) -> list[Comparison]:
    """Return chain and scatter."""
    folder = inputs / f"workflows-{WIDTH[size]}"
    once(folder, lambda out: _write(out, folder, size))
    what = {"chain": "10-step chain", "scatter": f"{WIDTH[size]}-wide scatter"}
    return [_comparison(name, words, folder) for name, words in what.items()]


def _write(out: Path, final: Path, size: str) -> None:
    """Write the inputs, and a StreamFlow file per workflow with every step on this machine."""
    (out / "original.txt").write_text("a small file\n")
    original = {"class": "File", "path": str(final / "original.txt")}
    jobs = {"chain": {}, "scatter": {"names": [f"copy-{n:02d}" for n in range(WIDTH[size])]}}
    for name, job in jobs.items():
        (out / f"{name}.json").write_text(json.dumps({"original": original, **job}))
        document = yaml.safe_load((ROOT / "environments/local/streamflow.yml").read_text())
        config = document["workflows"]["main"]["config"]
        config |= {"file": str(FOLDER / f"{name}.cwl"), "settings": str(final / f"{name}.json")}
        (out / f"{name}.yml").write_text(yaml.safe_dump(document))


def _comparison(name: str, what: str, folder: Path) -> Comparison:
    workflow, job = FOLDER / f"{name}.cwl", folder / f"{name}.json"
    ours = [BIN / "streamflow", "run", "--outdir", "{work}", folder / f"{name}.yml"]
    cwltool = [BIN / "cwltool", "--quiet", "--no-container", "--parallel", "--outdir", "{work}"]
    toil = [
        TOIL / "toil-cwl-runner",
        "--no-container",
        "--logOff",
        "--jobStore",
        "{work}/jobs",
        "--outdir",
        "{work}/out",
    ]
    path = {"PATH": f"{TOIL}:{os.environ['PATH']}"}  # it looks for its worker there
    return Comparison(
        name=f"workflows-{name}",
        how=f"{what} of `cp` on this machine, a whole process from start to outputs. StreamFlow as the hybrid run has "
        "it, all steps bound here; cwltool --parallel; toil on one machine.",
        unit="s",
        contenders=[
            Contender(name=STREAMFLOW, command=ours, libraries=("slicestream", "streamflow")),
            Contender(name=CWLTOOL, command=[*cwltool, workflow, job], libraries=("cwltool",)),
            Contender(name=TOIL_NAME, command=[*toil, workflow, job], libraries=("toil",), environment=path),
        ],
        claims=[faster(f"overhead, {what}", STREAMFLOW, peer, 1) for peer in (CWLTOOL, TOIL_NAME)],
    )
