"""A run's folder, made by the steps themselves from a cohort with marks, as if train and infer had run on sites."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from canary import WORD, needles, plant
from slicestream.__main__ import main
from slicestream.streamflow_plugin.record import JobRecord, SitesRecord

HOST = f"{WORD.lower()}.hospital.example"
POD = "slicestream-infer-0123456789ab-x"
IMAGE = f"localhost/slicestream/train:0.1.0@build:{'ab' * 32}"
ON_SLURM = {
    "SLICESTREAM_SITE": "slurm",
    "SLICESTREAM_JOB": "14",
    "SLICESTREAM_GRES": "gpu:0",
    "SLICESTREAM_IMAGE": IMAGE,
}
LOCAL = "__LOCAL__"


class MarkedRun:
    """The folder of a run of main.cwl, and what must not be told of it."""

    def __init__(self, room: Path, cohort: Path) -> None:
        self.room, self.folder = room, room / WORD / "run"
        self.marked = room / WORD / "cohort"
        self.wanted = needles(plant(cohort, self.marked)) | {str(room).encode(): "a path", HOST.encode(): "a host"}
        self.key = Path(shutil.copy(cohort / "pseudonym_key", room / WORD))
        self.parts = self.folder / "parts"

    def step(self, name: str, *flags: str | Path, **environment: str) -> Path:
        """Run a step as on the site that the environment says; return its folder."""
        out = self.parts / name
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "gethostname", lambda: POD if name == "infer" else HOST)
            patch.setenv("SLICESTREAM_SCRATCH", str(self.room / "scratch"))
            for variable, value in environment.items():
                patch.setenv(variable, value)
            assert main([name, *map(str, flags), "--out", str(out)]) == 0
        return out

    def make(self) -> None:
        """Run all steps and lay their outputs out as the run scripts do."""
        cohort = self.step("preprocess", "--cohort", self.marked, "--pseudonym-key", self.key, SLICESTREAM_SITE=WORD)
        slices, indexes = [*cohort.glob("training-*.slices")], [*cohort.glob("series-*.json")]
        sides = self.step("split", "--slices", *slices, "--indexes", *indexes)
        shards = ["--training", *sides.glob("training-*"), "--validation", *sides.glob("validation-*")]
        trained = self.step("train", *shards, "--recipe", "phantom", "--epochs", "1", "--device", "cpu", **ON_SLURM)
        model, split = trained / "model.onnx", sides / "split.json"
        patients = json.loads(split.read_text())["patients"]
        volumes = [path for path in cohort.glob("*.volume") if patients.get(path.name[:16]) == "test"]
        named = shutil.copy(model, self.room / WORD / f"{WORD}.onnx")
        found = self.step("infer", "--model", named, "--volumes", *volumes, SLICESTREAM_SITE="kubernetes")
        masks, references = [*found.glob("*.mask")], [*cohort.glob("*.reference")]
        compared = ["--masks", *masks, "--references", *references]
        scores = self.step("evaluate", *compared, "--split", split, "--split-name", "test")
        identities = [*cohort.glob("*.identity")]
        results = self.step("export", *compared, "--volumes", *volumes, "--identities", *identities)
        self.step("view", *compared, "--volumes", *volumes)
        shown = ["--nodules", results / "nodules.csv", "--overlays", results / "overlays", "--split", split]
        made = ["--model", model, "--weights", trained / "weights.safetensors", "--card", trained / "model.json"]
        records = sorted(self.parts.rglob("*.run.json"))
        with_title = ["--title", f"{WORD} of the ward", "--metrics", scores / "metrics.json", "--records", *records]
        page = self.step("report", *shown, *made, *with_title)
        for folder in (results, scores, page):
            shutil.copytree(folder, self.folder, dirs_exist_ok=True)
        shutil.copytree(found, self.folder / "masks")
        (self.folder / "records").mkdir()
        for path in self.parts.rglob("*.run.json"):
            shutil.copy(path, self.folder / "records")
        for path in self.folder.glob("*.run.json"):
            path.unlink()
        shutil.move(self.parts, self.room / "parts")

    def records(self) -> dict[str, dict[str, Any]]:
        """Return the run records by step."""
        found = [json.loads(path.read_text()) for path in (self.folder / "records").glob("*.run.json")]
        return {record["step"]: record for record in found}

    def write_sites(self, failed: str = "") -> None:
        """Write sites.json with the plugin's own classes, as it does at the end of a run."""
        told = SitesRecord("0123456789ab")
        told.known_as = {"login": "hpc"}
        places = {"train": ("hpc", f"{HOST}/slurmctld"), "infer": ("cloud", f"{POD}:infer")}
        for step, record in self.records().items():
            deployment, location = places.get(step, (LOCAL, LOCAL))
            told.jobs.append(_job(step, record, deployment=deployment, location=location))
        for job in told.jobs:
            job.status = "failed" if job.step == f"/{failed}" else "completed"
        told.slurm_jobs["/train/0"] = "14"
        told.moved("laptop", "login", size=30_900_000, seconds=0.5)
        told.moved("laptop", "login", size=100, seconds=0.5)
        told.moved("hpc", HOST, size=7, seconds=0.1)  # who calls a deployment by its host's name
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLICESTREAM_RECORD", str(self.folder / "sites.json"))
            told.write()


def _job(step: str, record: dict[str, Any], *, deployment: str, location: str) -> JobRecord:
    start, end = (datetime.fromisoformat(record[name]).timestamp() for name in ("start", "end"))
    return JobRecord(
        step=f"/{step}",
        job=f"/{step}/0",
        deployment=deployment,
        location=location,
        start=start - 1,
        end=end + 1,
        seconds=end - start + 2,
    )


@contextmanager
def without(path: Path) -> Iterator[None]:
    """Take a file away for a while."""
    aside = path.with_suffix(".aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)
