"""check finds what is wrong with files and real sites before a run does."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bed import HPC, Bed, need_bed
from slicestream.__main__ import main

ROOT = Path(__file__).parents[1]
USAGE = (ROOT / "docs/usage.md").read_text(encoding="utf-8")
SHIPPED = ["streamflow.yml", "environments/local/streamflow.yml", "environments/occam/streamflow.yml"]
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def bed(monkeypatch: pytest.MonkeyPatch) -> Bed:
    found = need_bed()
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    return found


def changed(folder: Path, change: Change) -> Path:
    """Write our StreamFlow file with whole paths and one change."""
    document = yaml.safe_load((ROOT / "streamflow.yml").read_text())
    settings = document["workflows"]["main"]["config"]
    settings |= {key: str(ROOT / settings[key]) for key in ("file", "settings")}
    deployments = document["deployments"]
    service = deployments["hpc"]["config"]["services"]["train"]
    service["file"] = str(ROOT / service["file"])
    deployments["cloud"]["config"]["files"] = [str(ROOT / one) for one in deployments["cloud"]["config"]["files"]]
    change(document)
    path = folder / "streamflow.yml"
    path.write_text(yaml.safe_dump(document))
    return path


def train(document: dict[str, Any]) -> dict[str, Any]:
    service: dict[str, Any] = document["deployments"]["hpc"]["config"]["services"]["train"]
    return service


@pytest.mark.parametrize("path", SHIPPED)
def test_every_shipped_streamflow_file_is_in_order(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(ROOT / path)]) == 0
    assert capsys.readouterr().out == f"{ROOT / path}: ok\n"


def test_a_relative_path_and_a_cwl_file_are_taken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT / "environments")
    assert main(["check", "local/streamflow.yml", "../workflows/pick.cwl"]) == 0
    assert capsys.readouterr().out == "local/streamflow.yml: ok\n../workflows/pick.cwl: ok\n"


BAD_FILES: dict[str, tuple[Change, str]] = {
    "type missing": (lambda d: d["deployments"]["cloud"].pop("type"), "'type' is a required property"),
    "unknown type": (lambda d: d["deployments"]["cloud"].update(type="clowd"), "StreamFlow refuses it ("),
    "no version": (
        lambda d: d.pop("version"),
        "no 'version: v1.0'; need a StreamFlow file, or one that ends with .cwl",
    ),
    "template gone": (lambda d: train(d).update(file="gone.j2"), "deployment hpc names gone.j2, which is not there"),
    "manifest gone": (
        lambda d: d["deployments"]["cloud"]["config"].update(files=["gone.yaml"]),
        "deployment cloud names gone.yaml, which is not there",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_streamflow_file_is_refused_in_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, line = BAD_FILES[case]
    path = changed(tmp_path, change)
    assert main(["check", str(path), str(ROOT / "workflows/pick.cwl")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"slicestream check: {path}: ")
    assert line in said.err
    assert said.err.count("\n") == 1
    assert not said.out, "the first bad one ends it"


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.cwl", "cwlVersion: v1.2\nclass: Workflow\ninputs: {}\noutputs: {}\n", "not valid CWL ("),
        ("a.yml", "a: [", "not YAML ("),
        ("a.yml", None, "No such file or directory; need a StreamFlow or CWL file"),
        ("a.cwl", None, "not valid CWL ("),
    ],
)
def test_what_is_no_workflow_file_is_refused(
    name: str, text: str | None, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    assert main(["check", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"slicestream check: {path}: {line}")
    assert said.count("\n") == 1


def test_a_binding_that_sends_identities_away_is_refused_as_the_documents_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = {"step": "/preprocess", "target": {"deployment": "hpc", "service": "train"}}
    path = changed(tmp_path, lambda d: d["workflows"]["main"]["bindings"].append(away))
    assert main(["check", "--sites", str(path)]) == 2
    said = capsys.readouterr()
    assert not said.out, "no site is reached for a file that is refused"
    assert said.err.replace(f"{tmp_path}/", "").removeprefix("slicestream check: ").strip() in USAGE


def test_sites_that_are_ready_are_found_so(bed: Bed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # An image that the bed always has stands in for ours, and a manifest of it.
    template = tmp_path / "job.j2"
    template.write_text('apptainer exec "$project/images/busybox.sif" sh {{ streamflow_command }}\n')
    path = changed(tmp_path, lambda d: train(d).update(file=str(template)))
    status = main(["check", "--sites", str(path)])
    lines = [line.removeprefix(f"{path}: ") for line in capsys.readouterr().out.splitlines()]
    assert status == 0, lines
    assert f"login: ok: ssh {HPC} answers, and its host key is known" in lines
    assert any(line.startswith("login: ok: /scratch/slicestream can be written to, ") for line in lines)
    submission = next(line for line in lines if line.startswith("hpc: ok: Slurm takes service train with "))
    assert {"--partition=gpu", "--gpus=1", "--cpus-per-task=2"} <= set(submission.split())
    assert "hpc: ok: service train: image /scratch/slicestream/images/busybox.sif" in lines
    assert any(line.startswith("cloud: ok: you may make and run workers in namespace ") for line in lines)
    assert any(line.endswith(f"workers.yaml: the cluster takes it in namespace {namespace(lines)}") for line in lines)
    assert not bed.ssh("ls -A /scratch/slicestream | grep '^[.]slicestream' || true"), "the probe is gone"


def namespace(lines: list[str]) -> str:
    return next(line for line in lines if "make and run workers" in line).rpartition(" ")[2]


BAD_SITES: dict[str, tuple[Change, str]] = {
    "unknown partition": (
        lambda d: (train(d).clear(), train(d).update(partition="nope")),
        "hpc: to do: Slurm refuses service train with --partition=nope (sbatch: error: invalid partition "
        "specified: nope allocation failure: Invalid partition name specified); correct its options",
    ),
    "misspelt option": (lambda d: train(d).update(partion="gpu"), "unrecognized option '--partion=gpu'"),
    "too many GPUs": (lambda d: train(d).update(gpus="64"), "Requested node configuration is not available"),
    "work folder missing": (
        lambda d: d["deployments"]["login"].update(workdir="/scratch/nowhere"),
        "login: to do: /scratch/nowhere cannot be written to (",
    ),
    "no right to write": (
        lambda d: d["deployments"]["login"].update(workdir="/etc"),
        "login: to do: /etc cannot be written to (",
    ),
    "unknown alias": (
        lambda d: d["deployments"]["login"]["config"].update(nodes=["slicestream-nowhere.invalid"]),
        "login: to do: slicestream-nowhere.invalid: cannot be reached (",
    ),
    "unknown context": (
        lambda d: d["deployments"]["cloud"]["config"].update(kubeContext="nowhere"),
        "cloud: to do: kubeconfig has no context 'nowhere'; it has: ",
    ),
    "no rights in the namespace": (
        lambda d: d["deployments"]["cloud"]["config"].update(namespace="kube-system"),
        "cloud: to do: you may not create deployments, ",
    ),
}


def test_usage_quotes_what_slurm_says_of_an_unknown_partition() -> None:
    assert f"`{BAD_SITES['unknown partition'][1].partition(': to do: ')[2]}`" in USAGE


@pytest.mark.parametrize("case", BAD_SITES)
def test_a_site_that_would_stop_a_run_is_said_to(
    case: str, bed: Bed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, line = BAD_SITES[case]
    path = changed(tmp_path, change)
    assert main(["check", "--sites", str(path)]) == 2
    said = capsys.readouterr()
    assert any(line in one for one in said.out.splitlines()), said.out
    assert said.err.startswith(f"slicestream check: {path}: ")
    assert said.err.count("\n") == 1


def test_an_image_that_is_not_there_is_named(bed: Bed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    template = tmp_path / "job.j2"
    template.write_text("apptainer exec $project/images/gone.sif true || podman run localhost/gone:1 true\n")
    assert main(["check", "--sites", str(changed(tmp_path, lambda d: train(d).update(file=str(template))))]) == 2
    assert (
        "hpc: to do: service train: no image, neither /scratch/slicestream/images/gone.sif for apptainer nor "
        "localhost/gone:1 for podman; put one there"
    ) in capsys.readouterr().out


@pytest.mark.parametrize("known", ["another", "none"])
def test_a_host_key_that_is_not_the_known_one_is_refused(
    known: str, bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    config = (bed.home / ".ssh/config").read_text()
    hosts = home / "known_hosts"
    (home / ".ssh/config").write_text(f"Host *\n  UserKnownHostsFile {hosts}\n  GlobalKnownHostsFile none\n{config}")
    address = next(line.split()[1] for line in config.splitlines() if "HostName" in line)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / "key"], check=True)
    hosts.write_text(f"{address} {(home / 'key.pub').read_text()}" if known == "another" else "")
    monkeypatch.setenv("HOME", str(home))
    assert main(["check", "--sites", str(changed(tmp_path, lambda _: None))]) == 2
    line = next(one for one in capsys.readouterr().out.splitlines() if ": login: to do: " in one)
    assert line.partition(": to do: ")[2] in USAGE
    assert ("not the known one" in line) == (known == "another")
