"""The workflows whole, on a small cohort: two runners with one outcome, and the script that runs them on a laptop.

So short a training finds no nodule. The threshold is put amid the probabilities that such a network gives, so that the
masks hold very many voxels that the least difference between two runs would turn over.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CWLTOOL = [BIN / "cwltool", "--quiet", "--no-container", "--preserve-environment", "SLICESTREAM_SCRATCH"]
THRESHOLD = 0.0135
EPOCHS = 2
SAME = ("metrics.json", "nodules.csv", "split.json", "history.csv", "model/model.onnx", "model/weights.safetensors")


def file(path: Path) -> dict[str, str]:
    return {"class": "File", "path": str(path)}


def folder(path: Path) -> dict[str, str]:
    return {"class": "Directory", "path": str(path)}


@pytest.fixture(scope="session")
def key(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cohort's key, outside of the cohort: a runner stages no file that also lies in a folder that it stages."""
    return Path(shutil.copy(cohort / "pseudonym_key", tmp_path_factory.mktemp("key")))


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Outputs of main.cwl under each runner."""

    cwltool: Path
    streamflow: Path


def environment(scratch: Path) -> dict[str, str]:
    return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "SLICESTREAM_SCRATCH": str(scratch)}


@pytest.fixture(scope="session")
def runs(cohort: Path, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """main.cwl, once under cwltool and once under StreamFlow, side by side."""
    room = tmp_path_factory.mktemp("runs")
    job = room / "job.yml"
    inputs = {"cohort": folder(cohort), "pseudonym_key": file(key), "recipe": "phantom", "epochs": EPOCHS, "threads": 1}
    job.write_text(yaml.safe_dump(inputs | {"threshold": THRESHOLD, "no_lung_mask": True, "title": "A test"}))
    commands = {
        "cwltool": [*CWLTOOL, "--outdir", room / "cwltool", ROOT / "workflows/main.cwl", job],
        "streamflow": [BIN / "streamflow", "run", "--outdir", room / "streamflow", streamflow_file(room, job)],
    }
    started = {}
    for name, command in commands.items():
        with (room / f"{name}.log").open("w") as log:
            scratch = environment(room / f"{name}-scratch")
            started[name] = subprocess.Popen(command, cwd=room, env=scratch, stdout=log, stderr=log)
    for name, process in started.items():
        assert process.wait(timeout=400) == 0, (room / f"{name}.log").read_text()[-3000:]
    return Runs(cwltool=room / "cwltool", streamflow=room / "streamflow")


def streamflow_file(room: Path, job: Path) -> Path:
    """Write a copy of the all-local streamflow.yml that takes this job and leaves all of its own in `room`."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "environments/local/streamflow.yml").read_text())
    config = document["workflows"]["main"]["config"]
    config |= {"file": str(ROOT / "workflows/main.cwl"), "settings": str(job)}
    document["deployments"]["laptop"]["workdir"] = str(room / "work")
    path = room / "streamflow.yml"
    path.write_text(yaml.safe_dump(document))
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as text:
        return list(csv.DictReader(text))


def assert_metrics_as_published(path: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads(path.read_text())
    Draft202012Validator(json.loads((ROOT / "docs/metrics.schema.json").read_text())).validate(metrics)
    return metrics


@pytest.mark.parametrize("name", SAME)
def test_cwltool_and_streamflow_give_the_same_bytes(runs: Runs, name: str) -> None:
    assert (runs.cwltool / name).read_bytes() == (runs.streamflow / name).read_bytes()


def test_cwltool_and_streamflow_give_the_same_masks_and_overlays(runs: Runs) -> None:
    for pattern in ("*.mask", "overlays/*.png", "viewer/*"):
        one = {path.name: path.read_bytes() for path in runs.cwltool.glob(pattern)}
        assert one, f"no {pattern}, so nothing was compared"
        assert one == {path.name: path.read_bytes() for path in runs.streamflow.glob(pattern)}


def test_cwltool_and_streamflow_give_the_same_kinds_of_files(runs: Runs) -> None:
    one, other = ({str(path.relative_to(top)) for path in top.rglob("*")} for top in (runs.cwltool, runs.streamflow))
    assert one == other


def test_main_shows_the_test_patients_and_nobody_else(runs: Runs) -> None:
    sides = json.loads((runs.cwltool / "split.json").read_text())["patients"]
    tested = {patient for patient, side in sides.items() if side == "test"}
    assert tested
    assert {path.name.split("-")[0] for path in runs.cwltool.glob("*.mask")} == tested
    found = [row for row in rows(runs.cwltool / "nodules.csv") if row["score"]]
    assert found, "no candidate, so nothing was shown"
    assert {row["patient"] for row in found} <= tested
    metrics = assert_metrics_as_published(runs.cwltool / "metrics.json")
    assert metrics["split"] == "test"
    assert metrics["patients"] == len(tested)
    assert metrics["nodules"]["count"] >= 1
    assert metrics["nodules"]["candidates"] == len(found)
    assert len(list((runs.cwltool / "segmentations").glob("*.dcm"))) == len({row["series"] for row in found})
    assert "A test" in (runs.cwltool / "report.html").read_text()


def test_train_alone_makes_the_model_that_main_makes(cohort: Path, key: Path, runs: Runs, tmp_path: Path) -> None:
    options = ["--recipe", "phantom", "--epochs", str(EPOCHS), "--threads", "1"]
    command = [*CWLTOOL, "--outdir", tmp_path / "out", ROOT / "workflows/train.cwl"]
    command += ["--cohort", cohort, "--pseudonym_key", key, *options]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/model.onnx").read_bytes() == (runs.cwltool / "model/model.onnx").read_bytes()


class Laptop:
    """A folder laid out as the repository, so that environments/local/run writes its runs there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        script = root / "environments/local/run"
        script.parent.mkdir(parents=True)
        shutil.copy(ROOT / "environments/local/run", script)
        (root / "workflows").symlink_to(ROOT / "workflows")
        self.script = script

    def start(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        scratch = environment(self.root / "scratch")
        return subprocess.Popen([self.script, *arguments], env=scratch, cwd=self.root, **streams, **options)

    def run(self, *arguments: str | Path) -> tuple[int, str, str]:
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=300)
        return process.returncode, stdout, stderr

    def processes(self) -> list[str]:
        """Command lines of what runs with this folder in its command line or as its place of work."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if str(self.root) in command + str((process / "cwd").readlink()):
                    found.append(command)
            except OSError:
                continue  # ended meanwhile
        return found


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path / "laptop")


def looked_at(model: Path) -> list[str | Path]:
    return ["--model", model, "--threshold", str(THRESHOLD), "--no_lung_mask", "--threads", "1"]


def test_score_goes_on_after_a_failure_and_scores_every_series(
    laptop: Laptop, cohort: Path, key: Path, runs: Runs, tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"no model")
    command = ["first", "score", "--cohort", cohort, "--pseudonym_key", key, *looked_at(model)]
    code, stdout, stderr = laptop.run(*command)
    assert (code, stdout) == (2, "")
    assert stderr.splitlines()[-1].startswith("run: runs/first: score.cwl failed")
    assert not (laptop.root / "runs/first").exists()

    shutil.copy(runs.cwltool / "model/model.onnx", model)
    between = time.time()
    code, stdout, stderr = laptop.run(*command)
    assert code == 0, stderr
    out = laptop.root / "runs/first"
    assert stdout.splitlines()[-1] == f"{out}/report.html"
    left = {path.name for path in out.iterdir()}
    assert left >= {"report.html", "metrics.json", "nodules.csv", "overlays", "viewer", "run.crate.zip"}
    preprocessed = [path.stat().st_mtime for path in (out / "records").glob("preprocess-*.run.json")]
    assert len(preprocessed) == 2
    assert max(preprocessed) < between, "what had been done was done again"
    metrics = assert_metrics_as_published(out / "metrics.json")
    studies = {(row["patientID"], row["exam"]) for row in rows(cohort / "dataset.csv")}
    assert metrics["split"] == "all"
    assert metrics["patients"] == len({patient for patient, _ in studies})
    assert metrics["cases"] == len(studies)
    assert len(list((out / "masks").glob("*.mask"))) == metrics["cases"]
    assert_a_finished_run_is_refused(laptop, command)


def assert_a_finished_run_is_refused(laptop: Laptop, command: list[str | Path]) -> None:
    before = (laptop.root / "runs/first/report.html").stat().st_mtime_ns
    code, stdout, stderr = laptop.run(*command)
    assert (code, stdout) == (2, "")
    assert stderr == ("run: runs/first: a finished run is there. Choose another NAME=, or replace it with FORCE=1.\n")
    assert (laptop.root / "runs/first/report.html").stat().st_mtime_ns == before


def test_segment_takes_a_plain_folder_and_names_the_patient_again(
    laptop: Laptop, cohort: Path, key: Path, runs: Runs
) -> None:
    images = cohort / "images/patient_0001"
    model = runs.cwltool / "model/model.onnx"
    code, stdout, stderr = laptop.run("new", "segment", "--cohort", images, "--pseudonym_key", key, *looked_at(model))
    assert code == 0, stderr
    out = laptop.root / "runs/new"
    assert stdout.splitlines()[-1] == f"{out}/report.html"
    assert not (out / "metrics.json").exists()
    found = rows(out / "nodules.csv")
    assert found
    assert {row["status"] for row in found} == {"candidate"}
    source = pydicom.dcmread(next(images.rglob("*.dcm")), stop_before_pixels=True)
    (path,) = (out / "segmentations").glob("*.dcm")
    segmentation = pydicom.dcmread(path)
    assert segmentation.Modality == "SEG"
    assert segmentation.PatientID == source.PatientID
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    assert segmentation.pixel_array.any()


def test_ctrl_c_leaves_no_process_and_no_run(laptop: Laptop, cohort: Path, key: Path) -> None:
    training = ["--recipe", "phantom", "--epochs", "1000", "--threads", "1"]
    process = laptop.start(
        "stopped", "main", "--cohort", cohort, "--pseudonym_key", key, *training, start_new_session=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("train: epoch 1/"):
            break
    assert any("slicestream train" in command for command in laptop.processes())
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "run: stopped; the same command goes on from here."
    assert laptop.processes() == []
    assert not (laptop.root / "runs/stopped").exists()
