"""After a run on sites the page is made again, with what only the finished run can tell."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
from pathlib import Path

import pytest

import made_report
from slicestream.__main__ import main

COMPLETE = runpy.run_path(str(Path(__file__).parents[2] / "environments/hybrid/run"))["complete"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run folder as the workflow leaves it, page made before the run's end."""
    out = tmp_path / "out"
    (out / "records").mkdir(parents=True)
    words = made_report.write_cohort(out)
    words[words.index("--sites") : words.index("--sites") + 2] = []
    assert main([*words, "--title", "A & B", "--out", str(tmp_path / "made")]) == 0
    for path in (tmp_path / "made" / "report.run.json", *out.glob("*.run.json")):
        shutil.move(path, out / "records" / path.name)
    shutil.move(tmp_path / "made" / "report.html", out)
    return out


def test_the_page_then_has_the_bytes_between_the_sites_and_its_record_is_of_it(out: Path, tmp_path: Path) -> None:
    before = (out / "report.html").read_text()
    COMPLETE(out, tmp_path, os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})
    after = (out / "report.html").read_text()
    assert "30.9 MB" in after
    assert "30.9 MB" not in before
    assert "<h1>A &amp; B</h1>" in after
    record = json.loads((out / "records/report.run.json").read_text())
    assert "sites.json" in record["inputs"]
    assert len(list((out / "records").iterdir())) == 5


def test_where_it_cannot_be_made_the_first_page_stays_and_it_is_said(
    out: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (out / "report.html").read_bytes()
    (out / "sites.json").write_text("{}")
    COMPLETE(out, tmp_path, os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})
    assert (out / "report.html").read_bytes() == before
    said = capfd.readouterr().err
    assert "no usable record of sites" in said
    assert "run: report.html stays without the sites; the line above says why." in said


def test_a_run_of_a_workflow_without_a_report_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "out/records").mkdir(parents=True)
    COMPLETE(tmp_path / "out", tmp_path, dict(os.environ))
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "records"]
