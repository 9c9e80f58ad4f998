"""Run workflows on the test bed's sites, look at what happens there, and do them harm."""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BED = Path(os.environ.get("TESTBED") or Path.home() / ".cache/slicestream/testbed")
KUBECTL = BED / "kubernetes/root/usr/bin/kubectl"
SCRIPT = runpy.run_path(str(ROOT / "environments/hybrid/run"))
RUNS: list[str] = []  # the ids of all runs that were started
SCRATCH = BED / "hpc/sites/hpc/scratch/slicestream"  # the site's, as this machine sees it


def shell(*command: str | Path, check: bool = True, **options: Any) -> str:
    """Return what a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)
    assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def on_site(*command: str) -> str:
    """Run a command on the HPC site as its root, without ssh."""
    return shell("nsenter", "-t", (BED / "hpc/run-hpc/init.pid").read_text().strip(), "-a", *command, check=False)


def kubectl(*arguments: str) -> str:
    """Run kubectl as the cluster's administrator, in our namespace."""
    return shell(KUBECTL, "--kubeconfig", BED / "kubernetes/kubeconfig", "-n", "slicestream", *arguments)


def lead_paths(path: Path) -> dict[str, Any]:
    """Return a StreamFlow file with whole paths to its templates and manifests."""
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    for deployment in document["deployments"].values():
        deployment["config"] = SCRIPT["lead"](path.parent, deployment["config"])
    return document


def site_files(**changes: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Return streamflow.yml with whole paths, after `changes` of its deployments by name."""
    document = lead_paths(ROOT / "streamflow.yml")
    for name, change in changes.items():
        change(document["deployments"][name])
    return document


@dataclass
class Run:
    """One run of a workflow on the sites, alive or ended."""

    process: subprocess.Popen[bytes]
    log: Path
    out: Path
    started: float

    def wait(self, seconds: float = 240) -> int:
        """Return the exit code; a run that hangs is killed and fails the test."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"hangs; its last lines: {self.said()[-2000:]}") from None

    def kill(self) -> None:
        """End it as a power cut would: the script and StreamFlow."""
        for pid in [*descendants(self.process.pid), self.process.pid]:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def until(self, happened: Callable[[], object], seconds: float = 90) -> None:
        """Wait until something happens while the run lives."""
        end = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, f"ended before: {self.said()[-2000:]}"
            assert time.monotonic() < end, f"never happened: {self.said()[-2000:]}"
            time.sleep(0.1)

    def hashes(self) -> dict[str, str]:
        """Return the content hashes of models and masks, which do not depend on where they were made."""
        found = {}
        for path in [*self.out.rglob("model.onnx"), *self.out.rglob("*.mask")]:
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted((self.out / "records").glob("*.run.json"))]


def start(
    room: Path, workflow: str, inputs: dict[str, Any], sites: dict[str, Any] | None = None, **environment: str
) -> Run:
    """Start `workflow` on the sites from an empty folder `room`."""
    room.mkdir(parents=True, exist_ok=True)
    RUNS.append(os.urandom(6).hex())
    streamflow_file = room / "sites.yml"
    streamflow_file.write_text(yaml.safe_dump(sites or site_files()))
    arguments = []
    for name, value in inputs.items():
        for one in value if isinstance(value, list) else [value]:
            arguments += [f"--{name}"] if one is True else [f"--{name}", str(one)]
    command = [
        sys.executable,
        ROOT / "environments/hybrid/run",
        f"run-{RUNS[-1]}",
        workflow,
        streamflow_file,
        *arguments,
    ]
    variables = os.environ | {
        "SLICESTREAM_RUN": RUNS[-1],
        "HOME": str(BED / "home"),
        "KUBECONFIG": str(BED / "home/.kube/config"),
        "XDG_STATE_HOME": str(room / "state"),
        "RUNS": str(room),
        "FORCE": "1",
    }
    log = room / "log"
    with log.open("ab") as text:
        process = subprocess.Popen(
            command, env=variables | environment, stdout=text, stderr=text, start_new_session=True
        )
    return Run(process=process, log=log, out=room / f"run-{RUNS[-1]}", started=time.monotonic())


def descendants(pid: int) -> list[int]:
    """Return the processes below `pid`, the lowest first."""
    found: list[int] = []
    for child in shell("ps", "-o", "pid=", "--ppid", str(pid), check=False).split():
        found += [*descendants(int(child)), int(child)]
    return found


def slurm_jobs() -> list[str]:
    """Return the ids of our runs' jobs in the queue."""
    return on_site("squeue", "-h", "-o", "%i", "-n", ",".join(f"slicestream-{run}" for run in RUNS)).split()


def site_processes(word: str) -> list[int]:
    """Return the processes on the sites (this machine's pid numbers) with a word in their command line."""
    here, found = Path("/proc/self/ns/pid").readlink(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if word in (process / "cmdline").read_text() and (process / "ns/pid").readlink() != here:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def pods() -> list[str]:
    """Return the pods of our runs."""
    return [name for name in kubectl("get", "pods", "-o", "name").split() if any(run in name for run in RUNS)]


def ours(word: str) -> list[int]:
    """Return the processes of our runs on the sites with a word in their command line."""
    return [pid for run in RUNS for pid in site_processes(run) if pid in set(site_processes(word))]


def left_behind() -> list[str]:
    """Return everything of our runs that is still on the sites or running here."""
    found = []
    things = kubectl("get", "deployments,replicasets,pods", "-o", "name").split()
    for run in RUNS:
        found += [f"Slurm job {job}" for job in on_site("squeue", "-h", "-o", "%i", "-n", f"slicestream-{run}").split()]
        found += [f"folder {path.name}" for path in SCRATCH.glob(run)]
        found += [name for name in things if run in name]
        found += [f"process {pid} on a site" for pid in site_processes(run)]
        found += [f"process {pid} here" for pid in shell("pgrep", "-f", run, check=False).split()]
    return found


def nothing_left(seconds: float = 20) -> bool:
    """Tell whether the sites come clean; pods need a moment to end."""
    end = time.monotonic() + seconds
    while left_behind() and time.monotonic() < end:
        time.sleep(0.5)
    return not left_behind()
