"""Whole `streamflow run`s of one small step on the real sites."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from bed import HPC, Bed

STREAMFLOW = Path(sys.executable).parent / "streamflow"
SCRATCH = "/scratch/slicestream"
# Unquoted on a site, as every CWL shell command is; the script comes as a File so that any text may stand in it.
WORK = {
    "cwlVersion": "v1.2",
    "class": "CommandLineTool",
    "id": "work",
    "baseCommand": "sh",
    "inputs": {
        "script": {"type": "File", "inputBinding": {"position": 1}},
        "data": {"type": ["File", "Directory"], "inputBinding": {"position": 2}},
    },
    "outputs": {"log": "stdout", "made": {"type": ["null", "File", "Directory"], "outputBinding": {"glob": "made"}}},
    "stdout": "log.txt",
}
WORKERS = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "plugin-test"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "plugin-test"}},
        "template": {
            "metadata": {"labels": {"app": "plugin-test"}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": False,
                "containers": [
                    {
                        "name": "worker",
                        "image": "localhost/busybox:1",
                        "imagePullPolicy": "Never",
                        "command": ["sleep", "86400"],
                        "volumeMounts": [{"name": "work", "mountPath": "/work"}],
                    }
                ],
                "volumes": [{"name": "work", "emptyDir": {}}],
            },
        },
    },
}
SLURM = {"partition": "gpu", "mem": "200", "time": "00:05:00", "file": "job.sh.j2"}


def flow(step: str, *, scattered: bool = False) -> dict[str, Any]:
    """Return a workflow of one step; scattered: of two jobs of it at once, on the same data."""
    document: dict[str, Any] = {
        "cwlVersion": "v1.2",
        "class": "Workflow",
        "inputs": {"script": "File", "data": ["File", "Directory"]},
        "steps": {step: {"run": "work.cwl", "in": {"script": "script", "data": "data"}, "out": ["log", "made"]}},
        "outputs": {
            "log": {"type": "File", "outputSource": f"{step}/log"},
            "made": {"type": ["null", "File", "Directory"], "outputSource": f"{step}/made"},
        },
    }
    if scattered:
        document["requirements"] = {"ScatterFeatureRequirement": {}}
        document["inputs"]["script"] = "File[]"
        document["steps"][step]["scatter"] = "script"
        document["outputs"] = {"log": {"type": "File[]", "outputSource": f"{step}/log"}}
    return document


@dataclass
class Outcome:
    """A finished run."""

    status: int
    said: str
    out: Path
    record: dict[str, Any]

    @property
    def log(self) -> str:
        return (self.out / "log.txt").read_text()

    @property
    def errors(self) -> list[str]:
        """What it said at level ERROR, each with its further lines."""
        entries = re.split(r"^(?=\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} )", self.said, flags=re.M)
        return [entry.split("ERROR", 1)[1].strip() for entry in entries if " ERROR " in entry[:40]]


@dataclass
class Laptop:
    """A folder with one workflow, bound to a site, and a register of runs of its own."""

    folder: Path
    bed: Bed
    run_id: str
    config: dict[str, Any]
    workers: dict[str, Any]
    running: subprocess.Popen[str] | None = None
    step: str = "work"
    in_background: bool = False
    scattered: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, script: str, data: Path, **environment: str) -> subprocess.Popen[str]:
        (self.folder / "script.sh").write_text(script)
        path = {"class": "File", "path": str(self.folder / "script.sh")}
        job = {
            "script": [path, path] if self.scattered else path,
            "data": {"class": "Directory" if data.is_dir() else "File", "path": str(data)},
        }
        for name, content in (
            ("work.cwl", WORK),
            ("flow.cwl", flow(self.step, scattered=self.scattered)),
            ("job.yml", job),
            ("streamflow.yml", self.config),
        ):
            (self.folder / name).write_text(yaml.safe_dump(content))
        (self.folder / "workers.yaml").write_text(yaml.safe_dump(self.workers))
        (self.folder / "job.sh.j2").write_text("#!/bin/bash\nset -o pipefail\n{{ streamflow_command | safe }}\n")
        command = [str(STREAMFLOW), "run", "--outdir", str(self.folder / "out"), str(self.folder / "streamflow.yml")]
        # As a job in the background of a script: SIGINT is ignored from the start.
        ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"] if self.in_background else []
        given = {
            **os.environ,
            **self.bed.environment,
            "XDG_STATE_HOME": str(self.folder / "state"),
            "SLICESTREAM_RUN": self.run_id,
            "SLICESTREAM_RECORD": str(self.folder / "record.json"),
            **self.environment,
            **environment,
        }
        self.running = subprocess.Popen(
            ignoring + command,
            env=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return self.running

    def end(self, running: subprocess.Popen[str], *, seconds: float = 120) -> Outcome:
        try:
            said, _ = running.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            running.kill()
            said, _ = running.communicate()
            pytest.fail(f"still running after {seconds} s:\n{said[-3000:]}")
        path = self.folder / "record.json"
        record = json.loads(path.read_text()) if path.is_file() else {}
        return Outcome(status=running.returncode, said=said, out=self.folder / "out", record=record)

    def run(self, script: str, data: Path, *, seconds: float = 120, **environment: str) -> Outcome:
        return self.end(self.start(script, data, **environment), seconds=seconds)

    def wait_for(self, look: str, *, host: str = HPC, seconds: float = 60) -> str:
        """Wait until a command on a site prints something."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if said := self.bed.ssh(f"{look} || true", host=host).strip():
                return said
            time.sleep(0.3)
        pytest.fail(f"nothing within {seconds} s: {look}")

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        environment = {**os.environ, **self.bed.environment}
        done = subprocess.run(["kubectl", *arguments], env=environment, capture_output=True, text=True, check=check)
        return done.stdout

    def as_administrator(self, *arguments: str) -> str:
        """Run kubectl with rights that a run does not have."""
        kubeconfig = self.bed.home.parent / "kubernetes/kubeconfig"
        if not kubeconfig.is_file():
            pytest.skip("needs the test bed: with your own cluster nothing is done as its administrator")
        return self.kubectl(f"--kubeconfig={kubeconfig}", "--namespace=slicestream", *arguments)

    def left(self) -> list[str]:
        """What the run has left: jobs, processes, folders, objects, a line in the register."""
        look = (
            f"squeue -h -n slicestream-{self.run_id} -o 'job %i'; ls -d {SCRATCH}/*/{self.run_id} 2>/dev/null; "
            f"grep -ls [{self.run_id[0]}]{self.run_id[1:]}/ /proc/[0-9]*/cmdline; true"
        )
        found = self.bed.ssh(look).splitlines()
        found += self.kubectl(
            "get", "pods,deployments", "-o", "name", "-l", f"slicestream/run={self.run_id}"
        ).splitlines()
        return found + [str(path) for path in (self.folder / "state").rglob("*.json")]
