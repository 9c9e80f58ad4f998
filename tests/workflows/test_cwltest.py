"""The cwltest cases of workflows/tests, on a copy beside which the cohort is laid."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
DOCUMENT = yaml.safe_load((ROOT / "workflows/tests/cwltest.yml").read_text())
CASES = [case["id"] for case in DOCUMENT]


REASONS = {  # a case that should fail passes for any failure, so its reason is looked at too
    "preprocess-nothing": "no CT image; need DICOM files of CT",
    "train-two-patients": "2 patients with annotated slices; need 3 or more",
}


@pytest.fixture(scope="module")
def results(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ElementTree.Element]:
    """What cwltest says of each case."""
    room = tmp_path_factory.mktemp("cwltest")
    workflows = shutil.copytree(ROOT / "workflows", room / "workflows", ignore=shutil.ignore_patterns("cohort"))
    shutil.copytree(cohort, workflows / "tests/cohort")
    cases, junit = workflows / "tests/cwltest.yml", room / "junit.xml"
    command = [BIN / "cwltest", "--test", cases, "--tool", BIN / "cwltool", "--junit-xml", junit]
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    subprocess.run([*command, "--", "--no-container"], cwd=room, env=environment, capture_output=True, check=False)
    return {case.attrib["file"]: case for case in ElementTree.parse(junit).getroot().iter("testcase")}


@pytest.mark.parametrize("case", CASES)
def test_cwltest_case(results: dict[str, ElementTree.Element], case: str) -> None:
    printed = results[case].findtext("system-err", "")
    assert results[case].find("failure") is None, printed
    assert REASONS.get(case, "") in printed


def test_every_case_that_should_fail_has_a_reason() -> None:
    assert {case["id"] for case in DOCUMENT if case.get("should_fail")} == set(REASONS)
