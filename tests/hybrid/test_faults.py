"""What can go wrong on the way, for real: the run recovers with the same outputs or says one clear line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from bed import need_bed
from hybrid import (
    BED,
    ROOT,
    RUNS,
    SCRATCH,
    Run,
    kubectl,
    left_behind,
    nothing_left,
    on_site,
    ours,
    pods,
    shell,
    site_files,
    slurm_jobs,
    start,
)

pytestmark = pytest.mark.slow
TABLE = ROOT / "runs" / "faults.md"
Sites = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A workflow with its inputs, and what an undisturbed run of it makes."""

    workflow: str
    inputs: dict[str, Any]
    hashes: dict[str, str]


@pytest.fixture(scope="module")
def training(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    need_bed()
    room = tmp_path_factory.mktemp("training")
    key = shutil.copy(cohort / "pseudonym_key", room / "key")
    inputs = {"cohort": cohort, "pseudonym_key": key, "recipe": "phantom", "epochs": 6, "threads": 1}
    run = start(room / "reference", "train", inputs)
    assert run.wait() == 0, run.said()[-3000:]
    return Job(workflow="train", inputs=inputs | {"model": next(run.out.rglob("model.onnx"))}, hashes=run.hashes())


@pytest.fixture(scope="module")
def segmenting(training: Job, tmp_path_factory: pytest.TempPathFactory) -> Job:
    inputs = {name: training.inputs[name] for name in ("cohort", "pseudonym_key", "model")} | {
        "threads": 1,
        "flips": True,
    }
    run = start(tmp_path_factory.mktemp("segmenting") / "reference", "segment", inputs)
    assert run.wait() == 0, run.said()[-3000:]
    return Job(workflow="segment", inputs=inputs, hashes=run.hashes())


def training_runs() -> bool:
    return bool(ours("slicestream\0train"))


def inference_runs() -> bool:
    return bool(ours("slicestream\0infer"))


def report(fault: str, outcome: str, seconds: float) -> None:
    """Add a row to the table, which docs/faults.md shows."""
    TABLE.parent.mkdir(exist_ok=True)
    if not TABLE.exists():
        TABLE.write_text("| fault | outcome | seconds | left behind |\n| --- | --- | --- | --- |\n")
    with TABLE.open("a") as text:
        text.write(f"| {fault} | {outcome} | {seconds:.0f} | {', '.join(left_behind()) or 'nothing'} |\n")


def recovered(fault: str, run: Run, job: Job) -> None:
    """The run ends well with the same outputs."""
    code = run.wait()
    assert code == 0, run.said()[-3000:]
    assert run.hashes() == job.hashes
    assert nothing_left(), left_behind()
    report(fault, "recovered, same outputs", time.monotonic() - run.started)


def refused(fault: str, run: Run, line: str) -> None:
    """The run fails with one line that says what happened, once."""
    code = run.wait()
    assert code != 0, run.said()[-3000:]
    lines = [text for text in run.said().splitlines() if re.search(line, text)]
    assert lines, run.said()[-3000:]
    assert "Traceback" not in run.said(), run.said()[-3000:]
    assert not (run.out).exists()
    assert nothing_left(), left_behind()
    report(fault, f"exit code {code}: {lines[0].strip()}", time.monotonic() - run.started)


def begin(room: Path, job: Job, sites: Sites | None = None, **environment: str) -> Run:
    inputs = dict(job.inputs)
    if job.workflow == "train":
        inputs.pop("model")
    return start(room, job.workflow, inputs, sites, **environment)


def service(deployment: Sites) -> dict[str, Any]:
    found: dict[str, Any] = deployment["config"]["services"]["train"]
    return found


# --- the Slurm site


def test_a_cancelled_training_job_is_run_again(training: Job, tmp_path: Path) -> None:
    run = begin(tmp_path, training)
    run.until(training_runs)
    on_site("scancel", *slurm_jobs())
    recovered("scancel of the training job", run, training)


def test_a_job_over_its_time_limit_is_refused(training: Job, tmp_path: Path) -> None:
    run = begin(tmp_path, training, site_files(hpc=lambda hpc: service(hpc).update(time="00:01:00")))
    run.until(training_runs)
    for process in ours("slicestream\0train"):
        os.kill(process, signal.SIGSTOP)  # it hangs
    refused("time limit of the Slurm job", run, r"train.*TIMEOUT")
    forget_checkpoints()


def test_a_job_over_its_memory_is_refused(training: Job, tmp_path: Path) -> None:
    run = begin(tmp_path, training, site_files(hpc=lambda hpc: service(hpc).update(mem="150M")))
    refused("memory of the Slurm job", run, r"train.*OUT_OF_MEMORY")
    forget_checkpoints()


def test_a_slurmd_that_dies_and_comes_back_does_not_change_the_outputs(training: Job, tmp_path: Path) -> None:
    run = begin(tmp_path, training)
    run.until(training_runs)
    on_site("pkill", "-9", "-x", "slurmd")
    time.sleep(3)
    on_site("slurmd", "-N", "gpu01")
    recovered("slurmd killed and restarted", run, training)


def test_an_sshd_that_dies_for_ten_seconds_does_not_change_the_outputs(training: Job, tmp_path: Path) -> None:
    run = begin(tmp_path, training)
    run.until(lambda: any((SCRATCH / name).exists() for name in RUNS))
    on_site("pkill", "-9", "sshd")
    time.sleep(10)
    on_site("/usr/sbin/sshd")
    recovered("sshd killed when the transfers begin, back after 10 s", run, training)
    told = [json.loads(line) for line in (run.out / "progress/events.jsonl").read_text().splitlines()]
    assert [one["state"] for one in told if one["event"] == "site"][:1] == ["out of reach"]
    assert [one["state"] for one in told if one["event"] == "site"][-1:] == ["back"]


def test_a_wrong_host_key_is_refused(training: Job, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(BED / "home", home)
    shell("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other")
    known = BED / "hpc/run-hpc/known_hosts"
    host, kind, _ = known.read_text().split()[:3]
    (tmp_path / "known").write_text(f"{host} {kind} {(tmp_path / 'other.pub').read_text().split()[1]}\n")
    config = home / ".ssh/config"
    config.write_text(config.read_text().replace(str(known), str(tmp_path / "known")))
    refused("wrong host key", begin(tmp_path / "run", training, HOME=str(home)), r"slicestream-hpc.*[Hh]ost key")


def test_an_unknown_partition_is_refused(training: Job, tmp_path: Path) -> None:
    run = begin(tmp_path, training, site_files(hpc=lambda hpc: service(hpc).update(partition="nowhere")))
    refused("unknown partition", run, r"train.*invalid partition")


def test_an_image_that_is_missing_on_the_site_is_refused(training: Job, tmp_path: Path) -> None:
    image = SCRATCH / "images/train.sif"
    image.rename(image.with_suffix(".away"))
    try:
        refused("image missing on the site", begin(tmp_path, training), r"no image .*train\.sif")
    finally:
        image.with_suffix(".away").rename(image)


def test_a_full_disk_on_the_site_is_refused(training: Job, tmp_path: Path) -> None:
    inside = "/scratch/slicestream"
    on_site(
        "sh",
        "-ec",
        f"mkdir -p /mnt/images; mount --bind {inside}/images /mnt/images; "
        f"mount -t tmpfs -o size=64k,mode=777 tmpfs {inside}; mkdir {inside}/images; "
        f"mount --bind /mnt/images {inside}/images",
    )
    try:
        refused("disk full on the site", begin(tmp_path, training), r"No space left on device.*Make room there")
    finally:
        on_site("sh", "-c", f"umount -l {inside}/images; umount -l {inside}; umount -l /mnt/images")


def forget_checkpoints() -> None:
    for path in (SCRATCH / "checkpoints").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


# --- the cluster


def test_a_pod_that_is_deleted_during_inference_does_not_change_the_outputs(segmenting: Job, tmp_path: Path) -> None:
    run = begin(tmp_path, segmenting)
    run.until(inference_runs)
    kubectl("delete", pods()[0], "--wait=false", "--grace-period=0", "--force")
    recovered("pod deleted during inference", run, segmenting)


def test_a_kubelet_that_stops_for_twenty_seconds_does_not_change_the_outputs(segmenting: Job, tmp_path: Path) -> None:
    kubelet = int((BED / "kubernetes/run/kubelet.pid").read_text())
    run = begin(tmp_path, segmenting)
    run.until(inference_runs)
    os.kill(kubelet, signal.SIGSTOP)
    try:
        time.sleep(20)
    finally:
        os.kill(kubelet, signal.SIGCONT)
    recovered("kubelet stopped for 20 s", run, segmenting)


def test_an_api_server_that_restarts_does_not_change_the_outputs(segmenting: Job, tmp_path: Path) -> None:
    run = begin(tmp_path, segmenting)
    run.until(inference_runs)
    os.kill(int((BED / "kubernetes/run/kube-apiserver.pid").read_text()), signal.SIGKILL)
    shell(ROOT / "tests/testbed/kubernetes/up.sh")
    recovered("API server killed and restarted", run, segmenting)


def test_a_role_that_forbids_exec_is_refused(segmenting: Job, tmp_path: Path) -> None:
    rules = ["get", "list", "create", "delete"]
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "expert", "namespace": "slicestream"},
    }
    role["rules"] = [
        {"apiGroups": ["apps", ""], "resources": ["deployments", "replicasets", "pods", "events"], "verbs": rules}
    ]
    (tmp_path / "role.yml").write_text(yaml.safe_dump(role))
    kubectl("apply", "-f", str(tmp_path / "role.yml"))
    try:
        refused("RBAC forbids exec", begin(tmp_path / "run", segmenting), r"pods/exec")
    finally:
        kubectl("apply", "-f", str(ROOT / "environments/kubernetes/site.yaml"))


def test_an_image_that_is_missing_in_the_cluster_is_refused(segmenting: Job, tmp_path: Path) -> None:
    manifest = tmp_path / "workers.yaml"
    ours = ROOT / "environments/kubernetes/workers.yaml"
    manifest.write_text(ours.read_text().replace("slicestream/infer:", "slicestream/nothing:"))
    run = begin(
        tmp_path / "run", segmenting, site_files(cloud=lambda cloud: cloud["config"].update(files=[str(manifest)]))
    )
    refused("image missing in the cluster", run, r"slicestream/nothing.*(ErrImage|ImagePull)")


# --- the laptop

PHASES: dict[str, tuple[str, Callable[[], bool]]] = {
    "preprocess": ("training", lambda: bool(shell("pgrep", "-f", "slicestream preprocess", check=False))),
    "train": ("training", training_runs),
    "infer": ("segmenting", inference_runs),
    "export": ("segmenting", lambda: bool(shell("pgrep", "-f", "slicestream export", check=False))),
}


@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_leaves_nothing_running(phase: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    name, reached = PHASES[phase]
    run = begin(tmp_path, request.getfixturevalue(name))
    run.until(reached)
    os.kill(run.process.pid, signal.SIGINT)
    assert run.wait(60) == 130, run.said()[-3000:]
    assert nothing_left(), left_behind()
    assert "Traceback" not in run.said(), run.said()[-3000:]
    report(f"Ctrl-C in {phase}", "exit code 130", time.monotonic() - run.started)
    forget_checkpoints()


@pytest.mark.parametrize("phase", ["train", "infer"])
def test_a_run_killed_with_sigkill_is_cleaned_up_by_the_next(
    phase: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name, reached = PHASES[phase]
    job = request.getfixturevalue(name)
    run = begin(tmp_path, job)
    run.until(reached)
    run.kill()
    assert left_behind()
    again = begin(tmp_path, job)
    recovered(f"laptop killed in {phase}, run started again", again, job)


def test_clean_removes_what_a_killed_run_left(segmenting: Job, tmp_path: Path) -> None:
    run = begin(tmp_path, segmenting)
    run.until(inference_runs)
    run.kill()
    home = {
        "HOME": str(BED / "home"),
        "KUBECONFIG": str(BED / "home/.kube/config"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    done = subprocess.run(
        [ROOT / ".venv/bin/slicestream", "clean"], env=os.environ | home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert nothing_left(), left_behind()
    report("laptop killed in infer, `slicestream clean`", done.stdout.strip().replace("\n", "; "), 0)
