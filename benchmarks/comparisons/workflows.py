"""What the engines themselves take: a chain of ten steps, a scatter over twenty, of a tool that copies a small file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import yaml
from harness import PEERS, ROOT, Comparison, Contender, faster
from inputs import once

FOLDER = ROOT / "benchmarks" / "workflows"
STREAMFLOW, CWLTOOL, TOIL = "StreamFlow, our plugin", "cwltool", "toil"
WIDTH = {"trial": 3, "bench": 20, "full": 20}
BIN = Path(sys.executable).parent


def comparisons(size: str, inputs: Path) -> list[Comparison]:
    """Return chain and scatter."""
    folder = inputs / f"workflows-{WIDTH[size]}"
    once(folder, lambda out: _write(out, folder, size))
    width = WIDTH[size]
    return [
        _comparison("chain", "10-step chain", folder, ("**/copied", 1)),
        _comparison("scatter", f"{width}-wide scatter", folder, ("**/copy-*", width)),
    ]


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


def _comparison(name: str, what: str, folder: Path, made: tuple[str, int]) -> Comparison:
    workflow, job = FOLDER / f"{name}.cwl", folder / f"{name}.json"
    ours = [BIN / "streamflow", "run", "--outdir", "{work}", folder / f"{name}.yml"]
    cwltool = [PEERS / "cwltool", "--quiet", "--no-container", "--parallel", "--outdir", "{work}"]
    toil = [PEERS / "toil-cwl-runner", "--no-container", "--logOff", "--jobStore", "{work}/jobs"]
    path = {"PATH": f"{PEERS}:{os.environ['PATH']}"}  # toil looks for its worker there

    def contender(title: str, command: list[str | Path], *libraries: str) -> Contender:
        return Contender(name=title, command=command, makes=made, libraries=libraries, environment=path)

    return Comparison(
        name=f"workflows-{name}",
        how=f"{what} of `cp` on this machine, a whole process from start to outputs. StreamFlow as the hybrid run has "
        "it, all steps bound here; cwltool --parallel; toil on one machine.",
        unit="s",
        contenders=[
            contender(STREAMFLOW, ours, "slicestream", "streamflow"),
            contender(CWLTOOL, [*cwltool, workflow, job], "cwltool"),
            contender(TOIL, [*toil, "--outdir", "{work}/out", workflow, job], "toil"),
        ],
        claims=[faster(f"overhead, {what}", STREAMFLOW, peer, 1) for peer in (CWLTOOL, TOIL)],
    )
