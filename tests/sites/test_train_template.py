"""The job template of training, in bash. `srun` and `apptainer` are stand-ins: no Slurm of two nodes is at hand."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from jinja2 import Template

TEMPLATE = Path(__file__).parents[2] / "environments/slurm/train.sh.j2"
# what srun does on each node of a step, one node after the other
SRUN = """#!/bin/bash
echo "srun $*" >> "$CALLS"
while [ "$1" != bash ]; do shift; done
for node in 0 1; do
    SLURM_NODEID=$node SLURM_STEP_NUM_NODES=2 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST='gpu[1-2]' "$@" || exit
done
"""
# apptainer --cleanenv: nothing of the environment but what --env names
APPTAINER = """#!/bin/bash
settings=(PATH="$PATH")
while [ "$1" != sh ]; do [ "$1" != --env ] || settings+=("$2"); shift; done
exec env -i "${settings[@]}" "$@"
"""
COMMAND = (
    'echo "$SLICESTREAM_SITE, job $SLICESTREAM_JOB on $SLICESTREAM_DEVICE, node ${SLURM_NODEID-none} of '
    '${SLURM_STEP_NUM_NODES-one} ($SLURM_STEP_NODELIST), GPUs ${CUDA_VISIBLE_DEVICES-any}"'
)


def ran(folder: Path, command: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run the template as a job in `folder`; return how it ended, and how srun was called."""
    work, tools, calls = folder / "project" / "run" / "job", folder / "tools", folder / "calls"
    for path in (work, tools, folder / "project" / "images"):
        path.mkdir(parents=True)
    (folder / "project" / "images" / "train.sif").touch()
    for name, text in (("srun", SRUN), ("apptainer", APPTAINER)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    job = folder / "job.sh"
    job.write_text(Template(TEMPLATE.read_text()).render(streamflow_workdir=str(work), streamflow_command=command))
    path = {"PATH": f"{tools}:{os.environ['PATH']}", "CALLS": str(calls)}
    done = subprocess.run(["bash", str(job)], env={**path, **environment}, capture_output=True, text=True, check=False)
    assert [one.name for one in work.parent.iterdir()] == ["job"]  # its script is gone
    return done, calls.read_text() if calls.exists() else ""


def test_a_job_on_one_node_needs_no_srun(tmp_path: Path) -> None:
    done, calls = ran(tmp_path, COMMAND, SLURM_JOB_ID="7", SLURM_JOB_NUM_NODES="1", CUDA_VISIBLE_DEVICES="0,1")
    assert (done.stdout, done.stderr) == ("slurm, job 7 on cuda, node none of one (), GPUs 0,1\n", "")
    assert calls == ""


def test_a_job_on_two_nodes_starts_one_container_on_each_and_says_who_the_others_are(tmp_path: Path) -> None:
    asked = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "8"}
    done, calls = ran(tmp_path, COMMAND, SLICESTREAM_DEVICE="cpu", **asked)
    assert done.stdout.splitlines() == [
        f"slurm, job 7 on cpu, node {node} of 2 (gpu[1-2]), GPUs any" for node in range(2)
    ]
    assert calls.startswith("srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=8 --export=ALL ")


def test_without_slurm_the_step_starts_at_once(tmp_path: Path) -> None:
    done, calls = ran(tmp_path, COMMAND)
    assert (done.stdout, calls) == ("occam, job  on cuda, node none of one (), GPUs any\n", "")


@pytest.mark.parametrize("nodes", ["1", "2"])
def test_the_exit_code_is_the_steps(tmp_path: Path, nodes: str) -> None:
    done, _ = ran(tmp_path, "exit 2", SLURM_JOB_ID="7", SLURM_JOB_NUM_NODES=nodes)
    assert done.returncode == 2
