"""The conventions of the workflows and of the imports, checked on every file that they are about."""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from slicestream.__main__ import STEPS

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
TOOLS = sorted((ROOT / "workflows/tools").glob("*.cwl"))
WORKFLOWS = sorted((ROOT / "workflows").glob("*.cwl"))
SITES = r"occam|slurm|kubernetes|k8s|openstack|docker\.io|singularity|apptainer|podman|\bssh\b|\bcineca\b|\bhpc"
WITHOUT_TOOL = {"phantom"}  # makes the input of a workflow, is no part of one

# Reads a StreamFlow file as StreamFlow does; in a process of its own, so that no test imports StreamFlow.
VALIDATE = "import sys; from streamflow.config.validator import SfValidator; SfValidator().validate_file(sys.argv[1])"


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def stem(path: Path) -> str:
    return path.stem


def processes(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a tool or workflow and every one written inside it."""
    yield document
    for step in document.get("steps", {}).values():
        if isinstance(step["run"], dict):
            yield from processes(step["run"])


def flags(step: str) -> dict[str, argparse.Action]:
    """Return the flags of a step's own parser."""
    parser = argparse.ArgumentParser()
    importlib.import_module(f"slicestream.{step}").add_arguments(parser)
    return {flag: action for action in parser._actions for flag in action.option_strings}


def test_every_step_has_a_tool_and_every_tool_a_step() -> None:
    assert {path.stem for path in TOOLS} == set(STEPS) - WITHOUT_TOOL


@pytest.mark.parametrize("path", TOOLS, ids=stem)
def test_a_tool_has_one_name_everywhere(path: Path) -> None:
    document = read(path)
    assert document["cwlVersion"] == "v1.2"
    assert document["class"] == "CommandLineTool"
    assert document["id"] == path.stem
    assert document["baseCommand"] == ["slicestream", path.stem]
    assert (ROOT / f"steps/slicestream/{path.stem}.py").is_file()
    assert (ROOT / f"tests/test_{path.stem}.py").is_file()


@pytest.mark.parametrize("path", WORKFLOWS, ids=stem)
def test_a_workflow_is_named_as_its_file_and_its_steps_as_their_tools(path: Path) -> None:
    document = read(path)
    assert document["cwlVersion"] == "v1.2"
    assert document["class"] == "Workflow"
    assert document["id"] == path.stem
    named = {name: step["run"] for name, step in document["steps"].items() if isinstance(step["run"], str)}
    assert {name: Path(run).stem for name, run in named.items()} == {name: name for name in named}
    assert all((path.parent / run).is_file() for run in named.values())


@pytest.mark.parametrize("path", TOOLS, ids=stem)
def test_every_input_of_a_tool_is_a_flag_of_its_step(path: Path) -> None:
    known = flags(path.stem)
    for name, port in read(path)["inputs"].items():
        binding = port["inputBinding"]
        assert set(binding) == {"prefix"}, f"{name}: by flag alone, so that the order never matters"
        assert binding["prefix"] in known, f"{path.stem} has no {binding['prefix']}"
        switch = known[binding["prefix"]].nargs == 0
        assert switch == (port["type"] in ("boolean", "boolean?")), f"{name}: a switch is a boolean, and no other is"


@pytest.mark.parametrize("path", TOOLS, ids=stem)
def test_every_flag_that_a_step_cannot_do_without_is_an_input_of_its_tool(path: Path) -> None:
    prefixes = {port["inputBinding"]["prefix"] for port in read(path)["inputs"].values()}
    assert {flag for flag, action in flags(path.stem).items() if action.required} <= prefixes


@pytest.mark.parametrize("path", TOOLS + WORKFLOWS, ids=stem)
def test_every_port_says_what_it_is(path: Path) -> None:
    for process in processes(read(path)):
        for name, port in {**process["inputs"], **process["outputs"]}.items():
            assert port["doc"].strip().endswith("."), name
            assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name), f"{name}: snake_case"
            assert not re.search(r"_?(file|path|dir)$", name) or path.stem == "pick", f"{name}: say what, not how kept"


@pytest.mark.parametrize("path", TOOLS + WORKFLOWS, ids=stem)
def test_no_workflow_needs_javascript_a_container_or_a_site(path: Path) -> None:
    text = path.read_text()
    assert "InlineJavascriptRequirement" not in text
    assert "CUDARequirement" not in text
    assert not re.search(SITES, text, re.IGNORECASE)
    for process in processes(read(path)):
        assert not {"DockerRequirement", "ResourceRequirement"} & set(process.get("requirements", {}))


@pytest.mark.parametrize("path", TOOLS, ids=stem)
def test_a_tool_hints_at_a_pinned_image_and_at_its_size(path: Path) -> None:
    hints = read(path)["hints"]
    assert re.fullmatch(r"slicestream/[a-z]+:\d+\.\d+\.\d+", hints["DockerRequirement"]["dockerPull"])
    assert hints["ResourceRequirement"]["coresMin"] >= 1
    assert hints["ResourceRequirement"]["ramMin"] >= 1024  # MiB


@pytest.mark.parametrize("path", WORKFLOWS, ids=stem)
def test_cwltool_finds_a_workflow_valid(path: Path) -> None:
    done = subprocess.run(
        [BIN / "cwltool", "--quiet", "--strict", "--validate", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{path.name} is valid CWL" in done.stdout


STREAMFLOW_FILES = [ROOT / "streamflow.yml", *sorted(ROOT.glob("environments/*/streamflow.yml"))]


@pytest.mark.parametrize("ours", STREAMFLOW_FILES, ids=lambda path: path.parent.name)
def test_streamflow_finds_our_file_valid_and_one_without_a_type_not(ours: Path, tmp_path: Path) -> None:
    assert _streamflow_error(ours) == ""
    wrong = read(ours)
    del next(iter(wrong["deployments"].values()))["type"]
    copy = tmp_path / "streamflow.yml"
    copy.write_text(yaml.safe_dump(wrong))
    assert "'type' is a required property" in _streamflow_error(copy)


def _streamflow_error(path: Path) -> str:
    done = subprocess.run([sys.executable, "-c", VALIDATE, path], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (done.stderr == ""), done.stderr
    return done.stderr


@pytest.mark.parametrize("path", STREAMFLOW_FILES, ids=lambda path: path.parent.name)
def test_a_streamflow_file_binds_its_steps_to_deployments_that_it_has(path: Path) -> None:
    document = read(path)
    for workflow in document["workflows"].values():
        config = workflow["config"]
        assert (path.parent / config["settings"]).is_file()
        steps = {f"/{name}" for name in read(path.parent / config["file"])["steps"]} | {"/"}
        for binding in workflow["bindings"]:
            assert binding["step"] in steps
            assert binding["target"]["deployment"] in document["deployments"]


def test_the_rooms_import_only_downwards() -> None:
    done = subprocess.run([BIN / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
