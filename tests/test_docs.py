"""The documents say all there is, and nothing that is not there."""

from __future__ import annotations

import argparse
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from ct_files import ct_series, unitochest
from slicestream.__main__ import COMMANDS, _parser
from slicestream.figures.nodules import COLUMNS
from slicestream.volumes.record import RunRecord
from test_bad_input import LISTED, PLAIN
from test_bad_input import run as preprocess

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted(path.stem for path in (ROOT / "workflows").glob("*.cwl"))
TOP_FOLDERS = ("steps", "workflows", "environments", "docs", "benchmarks", "tests")
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder, pattern in ((".", "*.md"), *((name, "**/*.md") for name in TOP_FOLDERS))
    for path in (ROOT / folder).glob(pattern)
)
# split names its outputs in cwl.output.json, not by a glob
SPLIT_FILES = {"split": "split.json", "run_record": "split.run.json"}


@cache
def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def cwl(name: str) -> dict[str, Any]:
    document = yaml.safe_load((ROOT / "workflows" / name).read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def section(text: str, heading: str) -> str:
    """Return what stands under a heading, up to the next of its level or above."""
    level = heading.split(maxsplit=1)[0]
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, f"no heading '{heading}'"
    return re.split(rf"\n#{{1,{len(level)}}} ", rest)[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of every table row."""
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines() if line[:1] == "|"]


def in_backticks(text: str) -> set[str]:
    """Return what stands in backticks outside code blocks."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)))


def flags(step: str) -> dict[str, argparse.Action]:
    commands = next(action for action in _parser(step)._actions if action.dest == "step")
    assert isinstance(commands.choices, dict)
    actions = commands.choices[step]._actions
    return {action.option_strings[-1]: action for action in actions if action.option_strings and action.dest != "help"}


@pytest.mark.parametrize("step", COMMANDS)
def test_usage_lists_exactly_the_flags_of_a_step_and_which_are_needed(step: str) -> None:
    text = section(page("docs/usage.md"), f"### slicestream {step}")
    listed = {row[0].strip("`"): row[1] for row in rows(text) if row[0].startswith("`--")}
    assert set(listed) == set(flags(step))
    needed = {flag for flag, action in flags(step).items() if action.required}
    assert {flag for flag, default in listed.items() if default == "needed"} == needed


@pytest.mark.parametrize("step", COMMANDS)
def test_usage_gives_the_defaults_of_a_step(step: str) -> None:
    text = section(page("docs/usage.md"), f"### slicestream {step}")
    listed = {row[0].strip("`"): row[1] for row in rows(text) if row[0].startswith("`--")}
    for flag, action in flags(step).items():
        if isinstance(action.default, int | float | str) and not isinstance(action.default, bool):
            kind = action.type if callable(action.type) else str
            assert kind(listed[flag]) == action.default, flag
        if action.default is False:
            assert listed[flag] == "off", flag


@pytest.mark.parametrize("step", COMMANDS)
def test_usage_has_an_example_of_a_step_that_its_parser_takes(step: str) -> None:
    examples = re.findall(rf"^slicestream ({step} .+)$", page("docs/usage.md"), flags=re.M)
    assert examples
    for example in examples:
        assert _parser(step).parse_args(example.split()).step == step


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_usage_lists_exactly_the_inputs_of_a_workflow(workflow: str) -> None:
    table = [row for row in rows(section(page("docs/usage.md"), "## Workflows")) if len(row) == 4 and row[1] != "of"]
    listed = {row[0].strip("`"): row[2] for row in table if workflow in row[1].split(", ")}
    inputs = cwl(f"{workflow}.cwl")["inputs"]
    assert set(listed) == set(inputs)
    for name, port in inputs.items():
        optional = "default" in port or str(port["type"]).endswith("?")
        assert (listed[name] == "needed") != optional, name
        if "default" in port:
            default = port["default"] if isinstance(port["default"], list) else [port["default"]]
            assert yaml.safe_load(f"[{listed[name].replace('`', '')}]") == default, name


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_output_names_every_output_of_a_workflow(workflow: str) -> None:
    assert f"`workflows/{workflow}.cwl`" in page("docs/usage.md")
    missing = set(cwl(f"{workflow}.cwl")["outputs"]) - in_backticks(page("docs/output.md"))
    assert not missing


def _files_of(workflow: str) -> set[str]:
    """Return the names that cwltool gives the outputs of a workflow, as the tools' globs say."""
    document = cwl(f"{workflow}.cwl")
    found = set()
    for output in document["outputs"].values():
        sources = output["outputSource"]
        for source in [sources] if isinstance(sources, str) else sources:
            step, port = source.split("/")
            if step == "split":
                found.add(SPLIT_FILES[port])
                continue
            tool = cwl(document["steps"][step]["run"])
            found.add(tool["outputs"][port]["outputBinding"]["glob"])
    return found


@pytest.mark.parametrize("workflow", [name for name in WORKFLOWS if name != "pick"])
def test_output_names_every_file_of_a_run_folder(workflow: str) -> None:
    text = page("docs/output.md")
    files = _files_of(workflow)
    assert files
    for name in files:
        if name.endswith(".run.json"):
            assert "`records/*.run.json`" in text
        elif name == "*.mask":
            assert "`masks/<id>.mask`" in text
        elif "." in name:
            assert f"`{name}`" in text, name
        else:
            assert f"`{name}/" in text, name


def test_output_says_which_workflow_gives_which_file() -> None:
    table = [row for row in rows(page("docs/output.md")) if len(row) == 5 and row[0].startswith("`")]
    for column, workflow in enumerate(("main", "score", "segment"), start=2):
        listed = {port for row in table if row[column] for port in re.findall(r"`([^`]+)`", row[1])}
        assert listed == set(cwl(f"{workflow}.cwl")["outputs"]), workflow


def test_output_explains_every_metric_and_definition_of_the_schema() -> None:
    schema = json.loads(page("docs/metrics.schema.json"))
    text = section(page("docs/output.md"), "## Metrics")
    names = {*schema["properties"], *schema["$defs"]["overlap"]["required"]}
    names |= set(schema["properties"]["nodules"]["required"])
    names |= set(schema["properties"]["nodules"]["properties"]["sensitivity"]["required"])
    names |= set(schema["properties"]["cases_detail"]["items"]["required"])
    assert not names - in_backticks(text)


def test_output_explains_every_column_of_the_nodule_table() -> None:
    assert not set(COLUMNS) - in_backticks(section(page("docs/output.md"), "## nodules.csv"))


def test_data_explains_every_field_of_a_run_record() -> None:
    assert not set(RunRecord.__dataclass_fields__) - in_backticks(section(page("docs/data.md"), "## Run record"))


REFUSALS = [row for row in rows(section(page("docs/usage.md"), "## What is refused")) if row[1].startswith("`")]


@pytest.mark.parametrize(("what", "line"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_usage_quotes_what_preprocess_says_of_bad_input(
    what: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = tmp_path / "cohort"
    if what in PLAIN:
        ct_series(cohort)
        PLAIN[what][0](cohort)
    else:
        unitochest(cohort)
        LISTED[what][0](cohort)
    assert preprocess(cohort, tmp_path / "out") == 2
    said = capsys.readouterr().err.replace(f"{tmp_path}/", "")
    assert re.fullmatch(".*".join(map(re.escape, f"slicestream preprocess: {line.strip('`')}\n".split("…"))), said)


def test_usage_names_every_environment_variable_and_make_variable() -> None:
    sources = [*ROOT.glob("steps/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("environments/*/run")]
    names = {name for path in sources for name in re.findall(r"\bSLICESTREAM_[A-Z]+\b", path.read_text("utf-8"))}
    makefile = page("Makefile")
    given = set(re.findall(r"\$\(([A-Z]+)\)", makefile)) | set(re.findall(r"\$\(call need,([A-Z]+)", makefile))
    given -= {"MAKECMDGOALS", "MAKE", "CURDIR", "HOME", "RUN"}  # make's own, and what the Makefile sets
    names |= given - set(re.findall(r"^([A-Z]+) :?=", makefile, flags=re.M))
    assert {"SLICESTREAM_SITE", "DATA", "MODEL", "NAME"} <= names
    assert not names - in_backticks(page("docs/usage.md"))


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_file_and_its_heading(name: str) -> None:
    here = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", page(name)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        led = (here.parent / path).resolve() if path else here
        assert led.exists(), target
        assert led.is_relative_to(ROOT), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", led.read_text(encoding="utf-8"), flags=re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}, target


@pytest.mark.parametrize("name", PAGES)
def test_every_path_in_backticks_exists(name: str) -> None:
    for text in in_backticks(page(name)):
        path = text.split()[0]
        if path.split("/")[0] in TOP_FOLDERS and "/" in path and not re.search(r"[<>*…]", path):
            assert (ROOT / path).exists(), path


def test_every_make_target_that_a_page_shows_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", page("Makefile"), flags=re.M))
    shown = {target for name in PAGES for target in re.findall(r"^make ([a-z-]+)", page(name), flags=re.M)}
    shown |= {text.split()[1] for name in PAGES for text in in_backticks(page(name)) if text.startswith("make ")}
    assert {"demo", "test", "real", "score", "segment"} <= shown
    assert not shown - targets


def test_ci_runs_the_test_command_of_the_quick_start() -> None:
    start = section(page("README.md"), "## Quick start")
    block = start.split("```")[1]
    assert re.findall(r"^make (\w+)", block, flags=re.M) == ["demo", "test"]
    last = page(".ci/run").strip().splitlines()[-1]
    assert last.endswith("make test")


def test_decisions_are_numbered_without_gaps_and_headed_by_their_number() -> None:
    paths = sorted((ROOT / "docs/decisions").iterdir())
    assert [int(path.name[:4]) for path in paths] == list(range(1, len(paths) + 1))
    for number, path in enumerate(paths, start=1):
        assert re.fullmatch(r"\d{4}(-[a-z0-9]+)+\.md", path.name)
        assert path.read_text(encoding="utf-8").startswith(f"# {number}. ")


def test_the_notice_stands_in_readme_and_output() -> None:
    for name in ("README.md", "docs/output.md"):
        assert "not for diagnosis" in page(name)
