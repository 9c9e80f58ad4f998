"""A laptop beside the real sites."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bed import HPC, OCCAM, Bed, need_bed
from streamflow_plugin.laptop import SCRATCH, SLURM, WORKERS, Laptop


@pytest.fixture(scope="session")
def sites() -> Bed:
    return need_bed()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file of 3 MB of noise."""
    path = tmp_path / "data.bin"
    path.write_bytes(secrets.token_bytes(3_000_000))
    return path


@pytest.fixture
def laptop(tmp_path: Path, sites: Bed, request: pytest.FixtureRequest) -> Iterator[Laptop]:
    """A laptop whose step is bound to the deployment that the test's parameter names: hpc, occam or cloud."""
    where = getattr(request, "param", "hpc")
    services = {"hpc": "train", "occam": "train", "cloud": "worker"}
    folder = tmp_path / "laptop"
    folder.mkdir()
    ssh = {"type": "ssh", "workdir": f"{SCRATCH}/plugin-tests"}
    deployments: dict[str, Any] = {
        "login": {**ssh, "config": {"nodes": [HPC], "transferBufferSize": 1048576}},
        "hpc": {
            "type": "slurm",
            "config": {"maxConcurrentJobs": 2, "pollingInterval": 1, "services": {"train": dict(SLURM)}},
            "wraps": "login",
            "workdir": f"{SCRATCH}/plugin-tests",
        },
        "occam": {**ssh, "config": {"nodes": [OCCAM], "services": {"train": "job.sh.j2"}}},
        "cloud": {"type": "kubernetes", "config": {"files": ["workers.yaml"], "timeout": 40}, "workdir": "/work"},
    }
    workflow = {
        "type": "cwl",
        "config": {
            "file": "flow.cwl",
            "settings": "job.yml",
            "docker": [{"step": "/", "deployment": {"type": "none", "config": {}}}],
        },
        "bindings": [{"step": "/work", "target": {"deployment": where, "service": services[where]}}],
    }
    config = {
        "version": "v1.0",
        "workflows": {"main": workflow},
        "deployments": deployments,
        "database": {"type": "sqlite", "config": {"connection": ":memory:"}},
    }
    made = Laptop(
        folder=folder,
        bed=sites,
        run_id=secrets.token_hex(6),
        config=config,
        workers=json.loads(json.dumps(WORKERS)),
    )
    yield made
    if made.running is not None:
        made.running.kill()
        made.running.communicate()
    sites.ssh(f"scancel --me --name=slicestream-{made.run_id}; rm -rf {SCRATCH}/plugin-tests/{made.run_id}; true")
    made.kubectl("delete", "deployment", "-l", f"slicestream/run={made.run_id}", "--wait=false")
