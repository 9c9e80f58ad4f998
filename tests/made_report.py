"""A made-up cohort as `slicestream report` takes it: nodules found, missed and false, and a run on sites."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import output_cases as cases
from slicestream.figures.nodules import NoduleRow, nodules_csv
from slicestream.figures.overlays import overlay
from slicestream.volumes import scores
from slicestream.volumes.metrics import Case, Nodule

SERIES = 24
SHAPE = {
    "perpendicular_diameter_mm": 4.0,
    "mean_hu": -120.5,
    "std_hu": 80.0,
    "x_mm": -31.0,
    "y_mm": 12.5,
    "z_mm": -80.0,
    "volume_mm3": 200.0,
}


def series_id(number: int) -> tuple[str, str]:
    return f"{number + 1:016x}", f"{0xA000 + number:016x}"


def rows_of(number: int) -> list[NoduleRow]:
    """Return a nodule found; in every third series one missed; in every second a false positive."""
    patient, series = series_id(number)
    base = NoduleRow(
        patient=patient,
        series=series,
        nodule=1,
        status="true_positive",
        score=0.99 - 0.02 * number,
        longest_diameter_mm=8.0 + number,
        slice_first=3,
        slice_last=6,
        matched=1,
        **SHAPE,
    )
    rows = [base]
    if number % 2 == 0:
        rows.append(replace(base, nodule=2, status="false_positive", score=0.6 + 0.01 * number, matched=None))
    if number % 3 == 0:
        rows.append(replace(base, nodule=None, status="missed", score=None, matched=2, slice_first=9, slice_last=9))
    return rows


def case_of(number: int) -> Case:
    patient, series = series_id(number)
    annotated, shared = np.zeros(12, np.int64), np.zeros(12, np.int64)
    annotated[3:7], shared[3:7] = 100, 95 - 3 * number
    nodules = [Nodule(label=1, diameter_mm=8.0 + number, volume_mm3=210.0 + 40 * number, score=0.9, found_mm3=200.0)]
    nodules += [Nodule(label=2, diameter_mm=2.5, volume_mm3=9.0, score=None)] if number % 3 == 0 else []
    return Case(
        patient=patient,
        series=series,
        predicted=shared,
        annotated=annotated,
        shared=shared,
        nodules=tuple(nodules),
        false_positive_scores=(0.6,) if number % 2 == 0 else (),
        candidates=2 - number % 2,
        model_hash="ab" * 32,
    )


def write_cohort(folder: Path) -> list[str]:
    """Write it; return the words of the command without --out."""
    overlays = folder / "overlays"
    overlays.mkdir()
    drawn, found = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    drawn[20:30, 20:30] = True
    for number in range(SERIES):
        found[:] = False
        found[20:30, 20 : 30 - number % 8] = True
        for index in (4, 5, 9):
            image = Image.fromarray(overlay(np.full((64, 64), 0.3), drawn, found))
            image.save(overlays / f"{'-'.join(series_id(number))}-{index:04d}.png")
    metrics = scores.summarise([case_of(number) for number in range(SERIES)], split="test", resamples=50)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "nodules.csv").write_text(nodules_csv(row for number in range(SERIES) for row in rows_of(number)))
    (folder / "history.csv").write_text("epoch,training_loss,validation_iou\n1,0.9,0.2\n2,0.5,0.5\n3,0.4,0.6\n")
    table = [{"side": side, "patients": 8, "series": 8, "images": 80} for side in ("training", "validation", "test")]
    (folder / "split.json").write_text(json.dumps({"table": table}))
    (folder / "sites.json").write_text(json.dumps(SITES))
    words = ["report", "--overlays", str(overlays), "--nodules", str(folder / "nodules.csv")]
    words += [word for name in ("metrics", "split", "sites") for word in (f"--{name}", str(folder / f"{name}.json"))]
    return [*words, "--history", str(folder / "history.csv"), "--records", *map(str, records(folder))]


def records(folder: Path) -> list[Path]:
    """Write the run records of preprocess, train on another site, infer on a third, and evaluate."""
    day = "2026-03-01T10:0"
    made = {"preprocess": {"a-b.volume": "11"}, "train": {"model.onnx": "22"}, "infer": {"a-b.mask": "33"}}
    read = {"train": {"a-b.volume": "11"}, "infer": {"model.onnx": "22", "a-b.volume": "11"}}
    read |= {"evaluate": {"a-b.mask": "33"}}
    sites = {"train": "slurm", "infer": "kubernetes"}
    return [
        cases.write_record(
            folder,
            step,
            f"{day}{n}:00+00:00",
            f"{day}{n}:50+00:00",
            site=sites.get(step, "laptop"),
            inputs=read.get(step, {}),
            outputs=made.get(step, {}),
            seconds=50.0,
            parameters={"seed": 3} if step == "train" else {},
        )
        for n, step in enumerate(("preprocess", "train", "infer", "evaluate"))
    ]


def _job(step: str, site: str, start: float, end: float, slurm_job: str | None = None) -> dict[str, object]:
    facts = {"step": f"/{step}", "job": f"/{step}/0", "deployment": site, "location": site, "slurm_job": slurm_job}
    return {**facts, "start": start, "end": end, "seconds": end - start, "status": "completed"}


SITES = {
    "run": "0123456789ab",
    "jobs": [
        _job("preprocess", "__LOCAL__", 1000.0, 1050.0),
        _job("train", "hpc", 1060.0, 1400.0, "7"),
        _job("infer", "cloud", 1410.0, 1420.0),
        _job("evaluate", "__LOCAL__", 1421.0, 1422.0),
    ],
    "transfers": [
        {"source": "laptop", "destination": "hpc", "bytes": 30_900_000, "seconds": 0.5, "files": 2},
        {"source": "hpc", "destination": "cloud", "bytes": 1_000_000, "seconds": 0.3, "files": 1},
        {"source": "cloud", "destination": "cloud", "bytes": 1_000_000, "seconds": 0.4, "files": 1},
    ],
}
