"""check finds what is wrong with files before a run does; tests/hybrid/test_check_faults.py has the sites."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from check_page import assert_only, listed, to_do
from slicestream.__main__ import main

ROOT = Path(__file__).parents[1]
SHIPPED = ["streamflow.yml", "environments/local/streamflow.yml", "environments/occam/streamflow.yml"]
Change = Callable[[dict[str, Any]], object]


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
    said = capsys.readouterr()
    found = table(said.out)
    assert [row[:3] for row in found[:3]] == [["laptop", what, "ok"] for what in ("schema", "CWL", "identities")]
    assert {(row[1], row[2]) for row in found[3:]} <= {("binding", "ok")}
    assert said.err == f"slicestream check: {len(found)} rows, 0 notes, nothing to do\n"


def table(out: str) -> list[list[str]]:
    """Return the cells of the printed table below its head."""
    head, *rows = (re.split("  +", line, maxsplit=3) for line in out.splitlines())
    assert head == ["deployment", "looked at", "verdict", "found"]
    return rows


def test_a_relative_path_and_a_cwl_file_are_taken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT / "environments")
    assert main(["check", "local/streamflow.yml", "../workflows/pick.cwl"]) == 0
    found = table(capsys.readouterr().out)
    assert [row[1] for row in found] == ["schema", "CWL", "identities", "binding", "CWL"]
    assert found[-1] == ["laptop", "CWL", "ok", "../workflows/pick.cwl is valid"]


def test_streamflow_yml_is_taken_where_no_file_is_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["check", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["file"] for one in found} == {"streamflow.yml"}
    assert [one["line"] for one in found if one["looked_at"] == "binding"] == [
        "step /train goes to service train",
        "step /infer goes to service infer",
    ]


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
    bad, good = table(said.out)
    assert bad[:3] == ["laptop", "schema", "to do"]
    assert bad[3].startswith(f"{path}: ")
    assert line in bad[3]
    assert good[2] == "ok", "the others are looked at all the same"
    assert said.err == "slicestream check: 1 of 2 rows say what is to be done before a run; do it, check again\n"


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
    (row,) = table(capsys.readouterr().out)
    assert row[2] == "to do"
    assert row[3].startswith(f"{path}: {line}")


def bindings(document: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document["workflows"]["main"]["bindings"]
    return found


def broken_workflow(document: dict[str, Any]) -> None:
    workflow = yaml.safe_load((ROOT / "workflows/main.cwl").read_text())
    workflow["steps"]["train"]["in"]["training"] = "split/nothing"
    for step in workflow["steps"].values():
        step["run"] = str(ROOT / "workflows" / step["run"])
    Path("broken.cwl").write_text(yaml.safe_dump(workflow))
    document["workflows"]["main"]["config"]["file"] = "broken.cwl"


FAULTS: dict[str, Change] = {
    "not StreamFlow's schema": lambda d: d["deployments"]["cloud"].pop("type"),
    "template that is not there": lambda d: train(d).update(file="gone.j2"),
    "CWL that is not valid": broken_workflow,
    "step with identities bound to a site": lambda d: bindings(d).append(
        {"step": "/preprocess", "target": {"deployment": "hpc", "service": "train"}}
    ),
    "binding of a step that is not there": lambda d: bindings(d)[0].update(step="/trian"),
    "binding to a deployment that is not there": lambda d: bindings(d)[0]["target"].update(deployment="hcp"),
    "binding to a service that is not there": lambda d: bindings(d)[1]["target"].update(service="inferr"),
}
PAGE = listed("Faults of files")


def test_the_page_lists_these_faults_of_files() -> None:
    assert list(PAGE) == list(FAULTS)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_file_is_the_one_row_to_do_and_no_site_is_reached(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = changed(tmp_path, FAULTS[name])
    assert main(["check", "--sites", "--json", str(path)]) == 2
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert_only(PAGE[name], to_do(found, tmp_path))
    assert {one["looked_at"] for one in found} <= {"schema", "CWL", "identities", "binding"}
    assert said.err.startswith("slicestream check: 1 of ")
    assert said.err.count("\n") == 1
