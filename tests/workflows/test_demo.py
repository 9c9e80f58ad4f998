"""The main job on the synthetic cohort, against what is known of it by construction."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import math
import os
import re
import shutil
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from output_cases import program
from slicestream.__main__ import main
from slicestream.dicom.pseudonyms import pseudonym, read_key

ROOT = Path(__file__).parents[2]
NAME = "test-demo"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The cohort and the run of `make demo`, under another name."""
    cohort = tmp_path_factory.mktemp("demo") / "cohort"
    assert main(["phantom", "--patients", "32", "--out", str(cohort)]) == 0
    shutil.rmtree(ROOT / "runs" / f".{NAME}", ignore_errors=True)
    shutil.rmtree(ROOT / "runs" / NAME, ignore_errors=True)
    command = [str(ROOT / "environments/local/run"), NAME, "main", "--cohort", str(cohort)]
    command += ["--pseudonym_key", str(cohort / "pseudonym_key"), "--recipe", "phantom", "--negatives", "0.2"]
    # a demo that the user runs meanwhile trains on the same data: its checkpoint is locked
    own = os.environ | {"SLICESTREAM_SCRATCH": str(tmp_path_factory.mktemp("checkpoints"))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=own)
    assert done.returncode == 0, done.stderr[-3000:]
    run = ROOT / "runs" / NAME
    assert done.stdout.splitlines()[-1] == str(run / "report.html")
    yield cohort, run
    shutil.rmtree(run)


def test_demo_finds_the_phantoms_nodules(demo: tuple[Path, Path]) -> None:
    _, run = demo
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["split"] == "test"
    assert metrics["iou"]["pooled"]["value"] >= 0.80


def test_demo_measures_every_nodule_of_8_mm_and_more_within_10_percent(demo: tuple[Path, Path]) -> None:
    cohort, run = demo
    key = read_key(cohort / "pseudonym_key")
    sides = json.loads((run / "split.json").read_text())["patients"]
    with (run / "nodules.csv").open() as table:
        found = [row for row in csv.DictReader(table) if row["status"] == "true_positive"]
    errors, missed = [], []
    with (cohort / "truth.csv").open() as table:
        truth = [row for row in csv.DictReader(table) if sides[_patient(key, row)] == "test"]
    for nodule in truth:
        series = pseudonym(key, "series", nodule["series_uid"])
        near = [row for row in found if row["series"] == series and _apart_mm(row, nodule) < 4.0]
        if near:
            errors.append(abs(float(near[0]["volume_mm3"]) / float(nodule["volume_mm3"]) - 1))
        elif float(nodule["diameter_mm"]) >= 8:
            missed.append(nodule)
    assert len(truth) >= 5
    assert missed == []
    assert statistics.median(errors) <= 0.10


def test_demo_leaves_what_the_user_is_promised(demo: tuple[Path, Path]) -> None:
    _, run = demo
    for name in (
        "report.html",
        "viewer/index.html",
        "metrics.json",
        "nodules.csv",
        "model/model.onnx",
        "model/weights.safetensors",
    ):
        assert (run / name).stat().st_size > 0
    assert list((run / "segmentations").glob("*.dcm"))
    assert list((run / "overlays").glob("*.png"))
    evaluation = json.loads((run / "model" / "model.json").read_text())["evaluation"]
    assert evaluation["iou"] == json.loads((run / "metrics.json").read_text())["iou"]


def test_the_tutorial_segments_its_patient_with_the_demos_model(demo: tuple[Path, Path], tmp_path: Path) -> None:
    _, run = demo
    tutorial = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    assert "\n$ .venv/bin/slicestream phantom --patients 1 --seed 7 --out trial\n" in tutorial
    assert main(["phantom", "--patients", "1", "--seed", "7", "--out", str(tmp_path / "trial")]) == 0
    name = f"{NAME}-tutorial"
    shutil.rmtree(ROOT / "runs" / name, ignore_errors=True)
    command = [str(ROOT / "environments/local/run"), name, "segment", "--flips", "--cohort"]
    command += [str(tmp_path / "trial/images/patient_0001"), "--model", str(run / "model/model.onnx")]
    command += ["--pseudonym_key", str(tmp_path / "trial/pseudonym_key")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    made = ROOT / "runs" / name
    try:
        (written,) = (made / "segmentations").glob("*.dcm")
        assert written.stat().st_size > 0
        assert (made / "viewer/index.html").is_file()
        # as the tutorial shows it; how many candidates there are is the model's affair
        assert re.search(r"^1 series: 1 DICOM SEG, 1 DICOM SR, ", done.stderr + done.stdout, flags=re.M)
        assert re.search(r"^1 series: 1 DICOM SEG, 1 DICOM SR, ", tutorial, flags=re.M)
    finally:
        shutil.rmtree(made)


def test_the_sites_pictures_are_of_report_and_viewer(demo: tuple[Path, Path]) -> None:
    spec = importlib.util.spec_from_file_location("site_pictures", ROOT / "docs/site_pictures.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    taken = {name: _grey(png) for name, png in hook.take(demo[1], program("chromium", "chromium")).items()}
    assert {name: picture.shape[1] for name, picture in taken.items()} == {
        name: width for name, (_, _, width, _) in hook.PICTURES.items()
    }
    assert all(picture.std() > 10 for picture in taken.values())  # an empty page has none
    assert taken["report-dark"].mean() < 128 < taken["report"].mean()


def _grey(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))


def _apart_mm(row: dict[str, str], nodule: dict[str, str]) -> float:
    return math.dist(*([float(place[axis]) for axis in ("x_mm", "y_mm", "z_mm")] for place in (row, nodule)))


def _patient(key: bytes, row: dict[str, str]) -> str:
    return pseudonym(key, "patient", f"PHANTOM-{row['patientID']}")
