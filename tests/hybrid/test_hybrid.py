"""The whole workflow on the sites gives what it gives on one machine, and says where each step ran."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bed import need_bed
from hybrid import ROOT, Run, lead_paths, left_behind, nothing_left, start

pytestmark = pytest.mark.slow
SAME = ("metrics.json", "nodules.csv", "split.json", "history.csv", "model/model.onnx", "model/weights.safetensors")


@pytest.fixture(scope="module")
def inputs(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A threshold amid the probabilities of a short training: masks full of voxels that any difference turns."""
    need_bed()
    key = shutil.copy(cohort / "pseudonym_key", tmp_path_factory.mktemp("key"))
    small = {"recipe": "phantom", "epochs": 2, "threads": 1, "threshold": 0.0135, "no_lung_mask": True}
    return {"cohort": cohort, "pseudonym_key": key} | small


@pytest.fixture(scope="module")
def slurm(inputs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """And somebody watches."""
    run = start(tmp_path_factory.mktemp("slurm"), "main", inputs)
    run.until((run.log.parent / f".{run.out.name}.sites/progress").exists)
    command = [sys.executable, "-m", "slicestream", "watch", run.out, "--json"]
    with (run.log.parent / "watched").open("w") as told, subprocess.Popen(command, stdout=told) as watching:
        ended(run)
        assert watching.wait(timeout=30) == 0
    return run


@pytest.fixture(scope="module")
def occam(inputs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    sites = ROOT / "environments/occam/streamflow.yml"
    return ended(start(tmp_path_factory.mktemp("occam"), "main", inputs, lead_paths(sites)))


def ended(run: Run) -> Run:
    assert run.wait() == 0, run.said()[-3000:]
    assert nothing_left(), left_behind()
    return run


@pytest.fixture(scope="module")
def local(inputs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All on this machine, under cwltool."""
    room = tmp_path_factory.mktemp("local")
    flags = [[f"--{name}"] if value is True else [f"--{name}", str(value)] for name, value in inputs.items()]
    environment = os.environ | {"SLICESTREAM_SCRATCH": str(room / "scratch")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    command = [
        "cwltool",
        "--quiet",
        "--no-container",
        "--preserve-environment",
        "SLICESTREAM_SCRATCH",
        "--outdir",
        room / "out",
    ]
    subprocess.run(
        [*command, ROOT / "workflows/main.cwl", *(word for flag in flags for word in flag)],
        env=environment,
        check=True,
        timeout=300,
    )
    return room / "out"


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("site", ["slurm", "occam"])
def test_sites_give_the_bytes_of_an_all_local_run(
    site: str, name: str, local: Path, request: pytest.FixtureRequest
) -> None:
    run: Run = request.getfixturevalue(site)
    assert (run.out / name).read_bytes() == (local / name).read_bytes()


@pytest.mark.parametrize("site", ["slurm", "occam"])
def test_sites_give_the_masks_of_an_all_local_run(site: str, local: Path, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(site)
    masks = {path.name: path.read_bytes() for path in local.rglob("*.mask")}
    assert masks
    assert {path.name: path.read_bytes() for path in (run.out / "masks").iterdir()} == masks


def test_training_ran_as_a_slurm_job_with_a_gpu_and_inference_in_two_pods(slurm: Run) -> None:
    by_step: dict[str, list[dict[str, Any]]] = {}
    for record in slurm.records():
        by_step.setdefault(record["step"], []).append(record)
    (train,) = by_step["train"]
    assert (train["site"], train["gres"]) == ("slurm", "gpu:0")
    assert train["job"].isdigit()
    assert [record["site"] for record in by_step["infer"]] == ["kubernetes"] * 2
    assert len({record["host"] for record in by_step["infer"]}) == 2
    here = {record["site"] for step in ("preprocess", "split", "evaluate", "export") for record in by_step[step]}
    assert here == {"laptop"}


def test_who_watches_sees_each_job_on_its_site_its_progress_what_is_moved_and_the_end(slurm: Run) -> None:
    events = [json.loads(line) for line in (slurm.log.parent / "watched").read_text().splitlines()]
    assert (events[0]["event"], events[-1]["event"], events[-1]["status"]) == ("run", "end", "completed")
    train = [one for one in events if one.get("about") == "/train/0"]
    states = [one["state"] for one in train if one["event"] == "job"]
    assert [state for state in states if state != "queued"] == ["starts", "runs", "completed"]
    assert {one["slurm_job"] for one in train if "slurm_job" in one} == {
        record["job"] for record in slurm.records() if record["step"] == "train"
    }
    said = [one for one in train if one["event"] == "progress"]
    assert said[-1]["share"] == 1.0
    assert said[-1]["text"].startswith("epoch 2/2, loss ")
    assert {one["place"] for one in events if "place" in one} == {"laptop", "hpc", "cloud"}
    assert {"laptop to hpc", "hpc to cloud"} <= {one["about"] for one in events if one["event"] == "moved"}


def test_what_the_jobs_on_the_sites_printed_is_kept(slurm: Run) -> None:
    logs = {path.name: path.read_text() for path in (slurm.out / "progress/logs").iterdir()}
    assert {"train-0.log"} < set(logs) <= {"train-0.log", "infer-0.0.log", "infer-0.1.log"}  # one share may be empty
    assert "train: epoch 1/2" in logs["train-0.log"]
    assert logs["train-0.log"].rstrip().splitlines()[-1].startswith("model.onnx ")
    assert any("infer: volume 1/" in text for name, text in logs.items() if name != "train-0.log")


def test_training_without_a_queue_ran_on_the_bare_metal_site(occam: Run) -> None:
    (train,) = (record for record in occam.records() if record["step"] == "train")
    assert (train["site"], train["job"]) == ("occam", "")


def test_a_run_tells_where_its_jobs_ran_and_what_went_over_each_link(slurm: Run) -> None:
    told = json.loads((slurm.out / "sites.json").read_text())
    jobs = {job["job"]: job for job in told["jobs"]}
    assert jobs["/train/0"]["slurm_job"] in {record["job"] for record in slurm.records()}
    assert {job["status"] for job in told["jobs"]} == {"completed"}
    links = {(link["source"], link["destination"]): link["bytes"] for link in told["transfers"]}
    model = (slurm.out / "model/model.onnx").stat().st_size
    assert links["hpc", "laptop"] > model
    assert all(links.values())


def test_workers_are_ordinary_users_with_a_read_only_root() -> None:
    pod = yaml.safe_load((ROOT / "environments/kubernetes/workers.yaml").read_text())["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"requests", "limits"} <= set(container["resources"])
