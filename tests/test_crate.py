"""The crate of a run: complete, valid for others' checkers, and silent on who the patients are."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from canary import search
from marked_run import HOST, IMAGE, MarkedRun, without
from slicestream.__main__ import main

ROOT = Path(__file__).parents[1]
CHECKERS = ROOT / ".venv/checkers/bin"
MAIN = ROOT / "workflows/main.cwl"
STEPS = ("preprocess", "split", "train", "infer", "evaluate", "export", "view", "report")
COMPLETED, FAILED = "http://schema.org/CompletedActionStatus", "http://schema.org/FailedActionStatus"


@pytest.fixture(scope="module")
def marked(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> MarkedRun:
    run = MarkedRun(tmp_path_factory.mktemp("crate"), cohort)
    run.make()
    run.write_sites()
    return run


def write(folder: Path, out: Path, workflow: Path = MAIN) -> Path:
    assert main(["crate", str(folder), "--workflow", str(workflow), "--out", str(out)]) == 0
    return out


@pytest.fixture
def crate(marked: MarkedRun, tmp_path: Path) -> Path:
    return write(marked.folder, tmp_path / "run.crate.zip")


def graph(crate: Path) -> dict[str, dict[str, Any]]:
    with zipfile.ZipFile(crate) as archive:
        document = json.loads(archive.read("ro-crate-metadata.json"))
    return {entity["@id"]: entity for entity in document["@graph"]}


def names(value: Any) -> list[str]:
    return [one["@id"] for one in (value if isinstance(value, list) else [value])]


def checker(name: str, *arguments: str | Path) -> str:
    """Return what a checker says; skip where there is none, but fail in CI."""
    if not (CHECKERS / name).exists():
        said = "no checkers of crates; make checkers installs them"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(said)
    done = subprocess.run([CHECKERS / name, *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def validated(crate: Path, room: Path, profile: str = "provenance-run-crate-0.5") -> dict[str, Any]:
    script = ROOT / "tests/provenance/check_crate.py"
    found: dict[str, Any] = json.loads(checker("python", script, crate, profile, room / "cache").splitlines()[-1])
    return found


def test_the_validator_finds_nothing_required_missing_in_any_of_the_five_profiles(crate: Path, tmp_path: Path) -> None:
    found = validated(crate, tmp_path)
    assert found["issues"] == []
    assert found["conforms"]
    wanted = {"ro-crate-1.1", "process-run-crate-0.5", "workflow-run-crate-0.5", "provenance-run-crate-0.5"}
    assert set(found["profiles"]) == wanted | {"workflow-ro-crate-1.0"}


def test_the_validator_finds_what_is_missing(crate: Path, tmp_path: Path) -> None:
    """The check above can fail."""
    broken = tmp_path / "broken.zip"
    with zipfile.ZipFile(crate) as old, zipfile.ZipFile(broken, "w") as new:
        for name in old.namelist():
            text = old.read(name).decode()
            if name == "ro-crate-metadata.json":
                document = json.loads(text)
                for entity in document["@graph"]:
                    if entity["@id"] == "#train":
                        del entity["instrument"]
                text = json.dumps(document)
            new.writestr(name, text)
    found = validated(broken, tmp_path)
    assert not found["conforms"]
    assert any("instrument" in issue for issue in found["issues"])


def test_runcrate_reports_every_step_with_its_tool(crate: Path) -> None:
    said = checker("runcrate", "report", crate)
    actions = re.findall(r"^action: #(\S+)\n(?:  step: \S+#main/(\w+)\n)?  instrument: (\S+)", said, flags=re.M)
    assert ("run", "", "workflows/main.cwl") in actions
    assert {(step, tool) for _, step, tool in actions if step} == {(s, f"workflows/tools/{s}.cwl") for s in STEPS}


def test_nothing_that_tells_who_a_patient_is_or_where_they_lie_is_in_a_crate(marked: MarkedRun, crate: Path) -> None:
    records = b"".join(path.read_bytes() for path in marked.folder.rglob("*.run.json"))
    assert search(records, marked.wanted)  # hosts and the title: a crate that took the records along would tell
    assert HOST.encode() in (marked.folder / "sites.json").read_bytes()
    with zipfile.ZipFile(crate) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for name, content in files.items():
        assert search(name.encode() + b"\n" + content, marked.wanted) == set(), name
        assert not re.search(rb'["\s](/|file:|~)[A-Za-z]+/', content), name


def test_a_crate_holds_what_is_allowed_and_nothing_else(marked: MarkedRun, crate: Path) -> None:
    (marked.folder / "patients.txt").write_text("a file that somebody laid there")
    again = write(marked.folder, crate.with_name("again.zip"))
    with zipfile.ZipFile(again) as archive:
        held = set(archive.namelist())
    tools = {f"workflows/tools/{step}.cwl" for step in STEPS}
    results = {"metrics.json", "model-card.md", "model/model.json"}
    assert held == {"ro-crate-metadata.json", "workflows/main.cwl", "workflows/pick.cwl"} | tools | results


def test_the_same_run_gives_the_same_bytes(marked: MarkedRun, crate: Path) -> None:
    assert write(marked.folder, crate.with_name("again.zip")).read_bytes() == crate.read_bytes()


def test_a_crate_says_where_a_step_ran_under_which_job_on_what_and_in_which_image(crate: Path) -> None:
    found = graph(crate)
    train, infer = found["#train"], next(one for name, one in found.items() if re.fullmatch("#infer-[0-9a-f]{8}", name))
    assert (train["location"]["@id"], train["identifier"]) == ("#site-hpc", "slurm_job:14")
    assert found["#site-hpc"]["description"] == "slurm"
    assert infer["location"]["@id"] == "#site-cloud"
    assert found["#split"]["location"]["@id"] == "#site-laptop"
    assert (found["#engine"]["name"], found["#engine"]["version"]) == ("StreamFlow", version("streamflow"))
    usage = {found[name]["name"]: found[name] for name in names(train["resourceUsage"])}
    assert usage["gres"]["value"] == "gpu:0"
    assert usage["device"]["value"].startswith("cpu (")
    assert usage["bytes_in"]["value"] > 1000
    image = found[train["containerImage"]["@id"]]
    assert f"{image['registry']}/{image['name']}:{image['tag']}@{image['identifier']}" == IMAGE
    assert "containerImage" not in found["#split"]


def test_a_crate_says_what_was_moved_between_sites(crate: Path) -> None:
    found = graph(crate)
    links = [entity for entity in found.values() if entity["@type"] == "TransferAction"]
    told = {(link["fromLocation"]["@id"], link["toLocation"]["@id"]): link for link in links}
    assert set(told) == {("#site-laptop", "#site-hpc"), ("#site-hpc", "#site-other")}
    usage = {
        found[name]["name"]: found[name]["value"] for name in names(told["#site-laptop", "#site-hpc"]["resourceUsage"])
    }
    assert usage == {"bytes": 30_900_100, "seconds": 1.0, "files": 2}


def test_a_model_and_a_mask_are_described_by_the_hash_that_the_steps_recorded(marked: MarkedRun, crate: Path) -> None:
    found, records = graph(crate), marked.records()
    made = names(found["#train"]["result"])
    (model,) = [found[name] for name in made if name.endswith("/model.onnx")]
    assert model["identifier"] == f"content_hash:{records['train']['outputs']['model.onnx']}"
    read = next(one for name, one in found.items() if re.fullmatch("#infer-[0-9a-f]{8}", name))["object"]
    assert model["@id"] in names(read)
    assert model["@id"] in names(found["#report"]["object"])
    masks = {name.rsplit("/", 1)[1] for name in names(found["#run"]["result"]) if name.endswith(".mask")}
    assert masks == set(records["infer"]["outputs"])
    assert all(re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]{16}\.mask", name) for name in masks)
    for path in (marked.folder / "masks").glob("*.mask"):
        (mask,) = [one for one in found.values() if one.get("name") == path.name]
        assert mask["contentSize"] == str(path.stat().st_size)


def test_a_file_in_the_crate_is_the_one_that_its_step_recorded(crate: Path) -> None:
    found = graph(crate)
    with zipfile.ZipFile(crate) as archive:
        for name in ("metrics.json", "model-card.md", "model/model.json"):
            content = archive.read(name)
            assert found[name]["sha256"] == hashlib.sha256(content).hexdigest()
            assert found[name]["contentSize"] == str(len(content))
    assert "metrics.json" in names(found["#evaluate"]["result"])


def test_a_failed_job_is_a_failed_action_of_a_failed_run(
    marked: MarkedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = marked.folder
    marked.write_sites(failed="export")
    try:
        with without(folder / "records/export.run.json"):
            found = graph(write(folder, tmp_path / "failed.zip"))
            assert "not whole" in capsys.readouterr().err
            assert validated(tmp_path / "failed.zip", tmp_path)["issues"] == []
    finally:
        marked.write_sites()
    status = {name: one["actionStatus"] for name, one in found.items() if "actionStatus" in one}
    assert status["#run"] == status["#orchestration"] == status["#export-job0"] == FAILED
    assert status["#train"] == COMPLETED


def test_a_run_that_stopped_early_names_the_steps_that_it_did_not_get_to(
    marked: MarkedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in ("preprocess-1of1", "split"):
        (tmp_path / "cut").mkdir(exist_ok=True)
        (tmp_path / "cut" / f"{step}.run.json").write_bytes((marked.folder / f"records/{step}.run.json").read_bytes())
    found = graph(write(tmp_path / "cut", tmp_path / "cut.zip"))
    assert found["#run"]["actionStatus"] == FAILED
    assert found["#run"]["error"] == "no record of: train, infer, evaluate, export, view, report"
    assert names(found["workflows/main.cwl"]["hasPart"]) == [f"workflows/tools/{s}.cwl" for s in STEPS[:2]]
    assert "train, infer, evaluate, export, view, report" in capsys.readouterr().err


def test_what_cannot_become_a_crate_is_one_line(
    marked: MarkedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    broken, changed = tmp_path / "broken", tmp_path / "changed"
    for folder in (broken, changed):
        folder.mkdir()
        for path in (marked.folder / "records").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
    (broken / "split.run.json").write_text('{"step": "split"}')
    (changed / "metrics.json").write_text("{}")
    cases = {
        "no run record": (tmp_path / "empty", MAIN),
        "lacks a field": (broken, MAIN),
        "changed after the run": (changed, MAIN),
        "has no step": (marked.folder, ROOT / "workflows/segment.cwl"),
        "need a workflow": (marked.folder, ROOT / "workflows/tools/train.cwl"),
    }
    for said, (folder, workflow) in cases.items():
        assert main(["crate", str(folder), "--workflow", str(workflow), "--out", str(tmp_path / "no.zip")]) == 2, said
        line = capsys.readouterr().err
        assert said in line
        assert line.count("\n") == 1
        assert not (tmp_path / "no.zip").exists()
