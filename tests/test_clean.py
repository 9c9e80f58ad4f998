"""clean removes what killed runs left on real sites, and nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import kubernetes
import pytest

from bed import HPC, OCCAM, Bed, need_bed
from slicestream.__main__ import main
from slicestream.sites.cluster import cluster
from slicestream.sites.runs import folder

KILLED, LIVING = "c1ea00000001", "c1ea00000002"
# A run as the plugin makes one: registered first, then a folder, a job, a process on bare metal, and workers.
RUN = """
import sys, time
from slicestream.sites.runs import Place, start_run
from slicestream.sites.ssh import connected
from slicestream.sites.cluster import cluster
import kubernetes
run = start_run(sys.argv[1])
work, metal = f"/scratch/slicestream/{run.id}", f"/scratch/slicestream/metal/{run.id}"
run.add(Place(kind="ssh", host="slicestream-hpc", folder=work))
run.add(Place(kind="slurm", host="slicestream-hpc", folder=work))
run.add(Place(kind="ssh", host="slicestream-occam", folder=metal))
run.add(Place(kind="kubernetes", host="", namespace=""))
with connected("slicestream-hpc") as site:
    answer = site.run(f"mkdir -p {work}/job/deep {metal} && cd {work} && echo secret > job/deep/file && "
        "ln -s /scratch/slicestream/images job/link && "
        f"sbatch --parsable --job-name=slicestream-{run.id} --chdir={work} --wrap='sleep 600'; "
        f"cd {metal} && (setsid sleep 600 > /dev/null 2>&1 &)")
    assert answer.status == 0, answer
labels = {"slicestream/run": run.id}
container = {"name": "infer", "image": "localhost/busybox:1", "imagePullPolicy": "IfNotPresent"}
container["command"] = ["sleep", "600"]
body = {"metadata": {"name": f"infer-{run.id}", "labels": labels}, "spec": {
    "replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
        "containers": [container], "terminationGracePeriodSeconds": 0}}}}
with cluster("") as ours:
    apps, core = kubernetes.client.AppsV1Api(ours.api), kubernetes.client.CoreV1Api(ours.api)
    apps.create_namespaced_deployment(ours.namespace, body)
    for _ in range(240):
        pods = core.list_namespaced_pod(ours.namespace, label_selector=f"slicestream/run={run.id}").items
        if pods and pods[0].status.phase == "Running":
            break
        time.sleep(0.25)
print("made", flush=True)
sys.stdin.read()
"""


def made(run_id: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", RUN, run_id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
        yield process
        process.kill()


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    found = need_bed()
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield found
    main(["clean"])  # whatever a failed test left
    found.ssh("rmdir --ignore-fail-on-non-empty /scratch/slicestream/metal 2> /dev/null || true")


@pytest.fixture
def killed(bed: Bed) -> Iterator[str]:
    for process in made(KILLED):
        process.send_signal(signal.SIGKILL)
        process.wait()
        yield KILLED


@pytest.fixture
def living(bed: Bed) -> Iterator[str]:
    for _ in made(LIVING):
        yield LIVING


def left(bed: Bed, run_id: str) -> dict[str, str]:
    """Return what there is of a run on the sites."""
    where = f"/scratch/slicestream/{run_id} /scratch/slicestream/metal/{run_id}"
    processes = f"for p in /proc/[0-9]*; do readlink $p/cwd | grep /metal/{run_id}; done; true"
    with cluster("") as ours:
        core, apps = kubernetes.client.CoreV1Api(ours.api), kubernetes.client.AppsV1Api(ours.api)
        label = f"slicestream/run={run_id}"
        pods = core.list_namespaced_pod(ours.namespace, label_selector=label).items
        deployments = apps.list_namespaced_deployment(ours.namespace, label_selector=label).items
    return {
        "jobs": bed.ssh(f"squeue --noheader --format=%i --name=slicestream-{run_id}"),
        "folders": bed.ssh(f"ls -d {where} 2> /dev/null; true"),
        "processes": bed.ssh(processes + " 2> /dev/null"),
        "pods": " ".join(one.metadata.name for one in pods),
        "deployments": " ".join(one.metadata.name for one in deployments),
    }


def test_all_of_a_killed_run_is_removed_and_nothing_of_a_living_one(
    killed: str, living: str, bed: Bed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert all(left(bed, killed).values()), left(bed, killed)
    before = left(bed, living)
    assert all(before.values()), before
    started = time.monotonic()
    assert main(["clean"]) == 0
    said = capsys.readouterr().out
    assert time.monotonic() - started < 60
    assert not any(left(bed, killed).values()), left(bed, killed)
    assert left(bed, living) == before
    for line in (
        f"removed {HPC}: folder /scratch/slicestream/{killed}",
        f"removed {OCCAM}: folder /scratch/slicestream/metal/{killed}",
    ):
        assert line in said.splitlines()
    assert f"removed {HPC}: job " in said
    assert f"removed {OCCAM}: processes " in said
    assert f": deployment infer-{killed}\n" in said
    assert living not in said
    assert bed.ssh("ls /scratch/slicestream/images"), "a link in a work folder is not followed"
    assert main(["clean"]) == 0
    assert capsys.readouterr().out == "nothing left behind\n"


def test_one_run_can_be_named(killed: str, bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "--run", "ffffffffffff"]) == 0
    assert capsys.readouterr().out == "nothing left behind\n"
    assert all(left(bed, killed).values())
    assert main(["clean", "--run", killed]) == 0
    assert not any(left(bed, killed).values())


def register(run_id: str, *places: str) -> Path:
    """Write the record of a killed run."""
    folder().mkdir(parents=True, exist_ok=True)
    path = folder() / f"{run_id}.json"
    path.write_text(f'{{"run": "{run_id}", "places": [{", ".join(places)}]}}')
    return path


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who reaches no site."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh/config").write_text("Host gone\n  HostName 127.0.0.1\n  Port 1\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KUBECONFIG", str(home / "none"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return home


def test_a_site_that_cannot_be_reached_is_named_and_its_run_stays_registered(
    nobody: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = register(
        KILLED, f'{{"kind": "ssh", "host": "gone", "folder": "/scratch/slicestream/{KILLED}", "namespace": ""}}'
    )
    assert main(["clean"]) == 2
    said = capsys.readouterr()
    assert said.err == (
        "slicestream clean: gone: cannot be reached (Connection refused); make 'ssh gone' work, then try again\n"
    )
    assert not said.out
    assert path.exists()


def test_a_cluster_that_is_not_configured_is_named(nobody: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = register(KILLED, '{"kind": "kubernetes", "host": "", "folder": "", "namespace": ""}')
    assert main(["clean"]) == 2
    assert capsys.readouterr().err.startswith("slicestream clean: kubeconfig: ")
    assert path.exists()


@pytest.mark.parametrize(
    "path", ["/", f"/{KILLED}", "/scratch", f"/scratch/../{KILLED}", f"scratch/{KILLED}", "/scratch/ffffffffffff"]
)
def test_only_a_work_folder_named_by_its_run_is_ever_removed(
    path: str, nobody: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register(KILLED, f'{{"kind": "ssh", "host": "gone", "folder": "{path}", "namespace": ""}}')
    assert main(["clean"]) == 2
    assert f"is no work folder of run {KILLED}" in capsys.readouterr().err


def test_a_link_in_place_of_a_work_folder_is_left_alone(bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    work = f"/scratch/slicestream/{KILLED}"
    bed.ssh(f"mkdir /scratch/slicestream/precious && ln -s precious {work}")
    try:
        register(KILLED, f'{{"kind": "ssh", "host": "{HPC}", "folder": "{work}", "namespace": ""}}')
        assert main(["clean"]) == 2
        assert f"{work} is a link" in capsys.readouterr().err
        assert bed.ssh("ls -d /scratch/slicestream/precious")
    finally:
        bed.ssh(f"rm {work}; rmdir /scratch/slicestream/precious")


def test_without_a_killed_run_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(["clean"]) == 0
    assert capsys.readouterr().out == "nothing left behind\n"


def test_what_is_no_run_id_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "--run", "../../etc"]) == 2
    assert "--run ../../etc: no run id; need 12 digits of 0-9a-f" in capsys.readouterr().err
