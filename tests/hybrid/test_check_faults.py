"""`slicestream check` names what is wrong: faults made one by one, each with the whole line of docs/check.md."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import check_faults as make
import pytest
from check_faults import SIF, WORK, Ground

from bed import need_bed
from check_page import assert_only, listed, matches, to_do
from hybrid import ROOT
from slicestream.__main__ import main
from slicestream.sites.preflight import findings

NEEDED = {"login": ["login"], "hpc": ["login", "hpc"], "metal": ["metal"], "cloud": ["cloud"]}
Fault = Callable[[Ground], object]

SITES: dict[str, Fault] = {
    "host name that nobody knows": lambda g: g.login["config"].update(nodes=["slicestream-nowhere.invalid"]),
    "closed port": lambda g: g.ssh("Port 2222"),
    "changed host key": make.another_host_key,
    "unknown host key": lambda g: g.known_hosts(""),
    "wrong key": lambda g: g.ssh(key=str(g.key())),
    "wrong user": lambda g: g.ssh("User mallory"),
    "home not writable": lambda g: g.on_site("chmod 555 /home/alice", "chmod 755 /home/alice"),
    "work folder not writable": lambda g: g.login.update(workdir="/etc"),
    "work folder missing": lambda g: g.login.update(workdir="/scratch/nowhere"),
    "full disk": make.small_disk,
    "limit on the size of files": make.short_files,
    "no such partition": lambda g: g.train.update(partition="nope"),
    "partition down": make.partition_down,
    "drained node": make.drained,
    "more GPUs than there are": lambda g: g.train.update(gpus="2"),
    "kind of GPU that is not there": lambda g: g.train.update(gpus="h100:1"),
    "training bound to a service without GPU": make.no_gpu_asked,
    "more memory than a node": lambda g: g.train.update(mem="64G"),
    "time over the limit": lambda g: g.train.update(time="2-00:00:00"),
    "misspelt option": lambda g: g.train.update(partion="gpu"),
    "more cores than a node": lambda g: g.train.update(cpusPerTask=512),
    "no container runtime": make.no_runtime,
    "image missing on the site": make.hidden(SIF),
    "another image under that name": make.another_image,
    "image of another build": make.newer_image_here,
    "no kubeconfig": lambda g: g.patch.setenv("KUBECONFIG", str(g.room / "gone")),
    "unknown context": lambda g: g.cloud.update(kubeContext="nowhere"),
    "wrong server": lambda g: g.kubeconfig("cluster", server="https://127.0.0.1:1"),
    "certificate of another authority": make.another_authority,
    "wrong or expired token": make.wrong_token,
    "no such namespace": lambda g: g.cloud.update(namespace="nowhere"),
    "role without exec": make.without_exec,
    "no role in the namespace": lambda g: g.cloud.update(namespace="kube-public"),
    "field that is none": lambda g: g.manifest(lambda one: one["spec"].update(replica=2)),
    "value of the wrong kind": lambda g: g.manifest(lambda one: one["spec"].update(replicas="two")),
    "quota exceeded": make.small_quota,
    "request larger than any node": make.asks(cpu="64", memory="1Gi"),
    "more workers than fit": lambda g: g.manifest(lambda one: one["spec"].update(replicas=40)),
    "cordoned node": lambda g: g.cluster("cordon", "k8s-node", undo=("uncordon", "k8s-node")),
    "image missing in the cluster": make.image("localhost/slicestream/nothing:0.1.0"),
    "no GPU, without a queue": make.no_gpu,
}
NOTES: dict[str, Fault] = {
    "busy partition": make.busy,
    "no network policy": make.without_policy,
    "nodes that your rights do not show": make.without_nodes,
    "image that is to be pulled": make.image("registry.example.org/slicestream/infer:0.1.0"),
}
WRONG_CLOCK = "clock of the laptop 90 s behind"


OF_SITES, OF_NOTES = listed("Faults of sites"), listed("Notes")


def test_the_page_lists_these_faults_and_no_others() -> None:
    assert sorted(OF_SITES) == sorted([*SITES, WRONG_CLOCK])
    assert list(OF_NOTES) == list(NOTES)
    assert len(OF_SITES) >= 20


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    if os.environ.get("SITES") == "own":
        pytest.skip("breaks the sites: on the test bed only")
    for name, value in need_bed().environment.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as undo:
        yield Ground(room=tmp_path, patch=monkeypatch, undo=undo)


def looked(deployment: str, ground: Ground) -> list[dict[str, str]]:
    """Return what is found about one deployment, and those that it goes through."""
    ground.document["deployments"] = {name: ground.document["deployments"][name] for name in NEEDED[deployment]}
    found = findings(ground.document, where=ground.write(), images=ground.images, link=False)
    return [asdict(one) for one in found]


@pytest.mark.parametrize("name", SITES)
def test_a_fault_of_a_site_is_the_one_row_to_do(name: str, ground: Ground) -> None:
    SITES[name](ground)
    assert_only(OF_SITES[name], to_do(looked(OF_SITES[name][0], ground), ground.room))


def test_the_stages_before_the_one_that_failed_are_said_to_be_well(ground: Ground) -> None:
    SITES["wrong key"](ground)
    verdicts = [(one["looked_at"], one["verdict"]) for one in looked("login", ground)]
    assert verdicts == [("name", "ok"), ("port", "ok"), ("host key", "ok"), ("login", "to do")]


@pytest.mark.parametrize("name", NOTES)
def test_what_may_be_wrong_is_noted_and_nothing_is_to_do(name: str, ground: Ground) -> None:
    deployment, looked_at, line = OF_NOTES[name]
    NOTES[name](ground)
    found = looked(deployment, ground)
    assert not to_do(found, ground.room)
    said = [one["line"] for one in found if (one["looked_at"], one["verdict"]) == (looked_at, "note")]
    assert len(said) == 1, found
    assert matches(line, said[0]), said


def test_a_clock_that_is_wrong_is_to_be_set(ground: Ground) -> None:
    ground.document["deployments"] = {"login": ground.login}
    ground.bindings.clear()
    command = ["faketime", "-f", "-90s", sys.executable, "-m", "slicestream", "check", "--sites", "--no-link", "--json"]
    done = subprocess.run([*command, ground.write()], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done.stderr
    assert_only(OF_SITES[WRONG_CLOCK], to_do(json.loads(done.stdout), ground.room))


@pytest.mark.parametrize("name", ["streamflow.yml", "environments/occam/streamflow.yml"])
def test_without_a_fault_nothing_is_to_do(name: str, ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--sites", str(ROOT / name)]) == 0
    said = capsys.readouterr()
    rows = [re.split("  +", line, maxsplit=3) for line in said.out.splitlines()]
    assert rows[0] == ["deployment", "looked at", "verdict", "found"]
    assert {row[2] for row in rows[1:]} == {"ok", "note"}
    noted = [(row[0], row[1]) for row in rows if row[2] == "note"]
    assert noted == [("cloud", "version"), ("cloud", "pod security")], "what a Kubernetes of 2021 cannot do"
    assert said.err == f"slicestream check: {len(rows) - 1} rows, 2 notes, nothing to do\n"
    seen = {row[1] for row in rows}
    assert {looked_at for deployment, looked_at, _ in OF_SITES.values() if deployment == "login"} <= seen
    assert {"link", "clock", "container", "image", "rights", "capacity", "quota", "network policy"} <= seen
    probes = f"ls -A {WORK} /home/alice | grep '^[.]slicestream' || true"
    assert not need_bed().ssh(probes), "the probes are gone"
