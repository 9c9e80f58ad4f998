"""What a report is made from, read and checked: split, history, metrics, nodules, run records, model card.

All of it is untrusted: it may come back from another site. Anything odd is an ArtefactError of one line.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from slicestream.errors import ArtefactError
from slicestream.figures.nodules import COLUMNS, STATUSES
from slicestream.volumes.documents import MAX_BYTES, Facts, brief, read_json
from slicestream.volumes.energy import NO_COUNTER

OVERLAPS = ("pooled", "per_slice", "per_slice_empty_is_one", "per_slice_annotated", "per_case")
SIZES = ("all", "under_3", "3-6", "6-10", "10-30", "30+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """The checked part of a run record; `inputs` and `outputs` map names to content hashes."""

    step: str
    site: str
    host: str
    device: str
    start: datetime
    end: datetime
    seconds: float
    items: int
    unit: str
    bytes_in: int
    bytes_out: int
    energy_j: float | None = None
    energy_from: str = NO_COUNTER
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    versions: Mapping[str, str]
    parameters: Mapping[str, Any] = field(default_factory=dict)


def read_metrics(path: Path) -> Facts:
    """Read metrics.json; the top that the report shows is checked. Raises ArtefactError."""
    metrics = read_json(path)
    try:
        str(metrics["split"])
        nodules = metrics["nodules"]
        for count in (*(metrics[n] for n in ("patients", "cases", "slices")), nodules["count"]):
            int(count)
        for measure in ("iou", "dice"):
            for name in OVERLAPS:
                _check_interval(metrics[measure][name])
        for name in SIZES:
            _check_interval(nodules["intervals"]["sensitivity"][name])
            int(nodules["counts"].get(name, nodules["count"]))
        _check_interval(nodules["intervals"]["false_positives_per_scan"])
        for point in metrics["froc"]:
            _check_interval({"value": point["sensitivity"], "low": None, "high": point["false_positives_per_scan"]})
        for name in ("operating_points", "false_positives_per_scan_at"):  # older files have none
            for figure in metrics.get(name, {}).values():
                _check_interval(figure)
        _check_interval(metrics.get("calibration", {}).get("error", {"value": None, "low": None, "high": None}))
        _check_interval({"value": None, **metrics.get("volume_error", {"low": None, "high": None})})
        for case in metrics["cases_detail"]:
            _check_case(case)
        len(metrics["not_scored"])
        for hash_or_text in (*metrics["models"], *metrics["definitions"].values()):
            str(hash_or_text)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(
            f"{path}: no usable metrics ({brief(error)}); need metrics.json of `slicestream evaluate`. Make it again."
        ) from error
    return metrics


def read_split(path: Path) -> list[Facts]:
    """Return the rows of split.json's table: side, patients, series, images. Raises ArtefactError."""
    split = read_json(path)
    try:
        return [
            {"side": str(row["side"]), **{name: int(row[name]) for name in ("patients", "series", "images")}}
            for row in split["table"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{path}: no usable split table ({brief(error)}); need split.json of `slicestream split`. Make it again."
        ) from error


def read_records(paths: Sequence[Path]) -> list[Record]:
    """Read run records in order of their start. Raises ArtefactError."""
    return sorted((_record(path) for path in paths), key=lambda r: (r.start, r.step, sorted(r.outputs)))


def read_history(path: Path) -> dict[str, list[float | None]]:
    """Return columns of numbers by name; an empty or non-finite cell is None. Raises ArtefactError."""
    rows = _table(path, "history.csv of `slicestream train`")
    try:
        return {name: [_number_or_none(row[name]) for row in rows] for name in rows[0]} if rows else {}
    except (ValueError, TypeError) as error:
        raise ArtefactError(f"{path}: not a table of numbers ({brief(error)}). Make it again.") from error


def read_nodules(path: Path) -> list[Facts]:
    """Return the rows of nodules.csv, numbers as numbers, empty cells as None. Raises ArtefactError."""
    rows = _table(path, "nodules.csv of `slicestream export`", COLUMNS)
    checked: list[Facts] = []
    for line, row in enumerate(rows, start=2):
        try:
            if row["status"] not in STATUSES:
                raise ValueError(f"status '{row['status']}'")
            numbers = {n: _number_or_none(row[n]) for n in COLUMNS if n not in ("patient", "series", "status")}
        except (ValueError, TypeError) as error:
            raise ArtefactError(f"{path}: line {line}: {brief(error)}. Make it again with export.") from error
        checked.append({"patient": row["patient"], "series": row["series"], "status": row["status"], **numbers})
    return checked


def _record(path: Path) -> Record:
    document = read_json(path)
    try:
        record = Record(
            step=str(document["step"]),
            site=str(document["site"]),
            host=str(document["host"]),
            device=str(document["device"]),
            unit=str(document["unit"]),
            start=_time(document["start"]),
            end=_time(document["end"]),
            seconds=finite(document["seconds"]),
            items=int(document["items"]),
            bytes_in=int(document["bytes_in"]),
            bytes_out=int(document["bytes_out"]),
            # older records have none
            energy_j=None if document.get("energy_j") is None else finite(document["energy_j"]),
            energy_from=str(document.get("energy_from", NO_COUNTER)),
            inputs=_texts(document["inputs"]),
            outputs=_texts(document["outputs"]),
            versions=_texts(document["versions"]),
            parameters=dict(document.get("parameters", {})),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(
            f"{path}: no usable run record ({brief(error)}); need a *.run.json of a step. Check which file it is."
        ) from error
    return record


def _texts(entries: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in entries.items()}


def _table(path: Path, what: str, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"over {MAX_BYTES} bytes")
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, restkey="", strict=True)
            rows = list(reader)
        missing = sorted(set(columns) - set(reader.fieldnames or ()))
        if missing:
            raise ValueError(f"column '{missing[0]}' is missing")
        if any("" in row or None in row.values() for row in rows):
            raise ValueError("rows of differing length")
    except (OSError, ValueError, csv.Error) as error:
        raise ArtefactError(f"{path}: no readable table ({brief(error)}); need {what}. Make it again.") from error
    return rows


def _check_interval(entry: Mapping[str, Any]) -> None:
    for name in ("value", "low", "high"):
        if entry[name] is not None:
            finite(entry[name])


def _check_case(case: Mapping[str, Any]) -> None:
    for name in ("slices", "slices_annotated", "hits", "false_positives"):
        int(case[name])
    for name in ("iou", "dice"):
        _check_interval({"value": case[name], "low": None, "high": None})
    for nodule in case["nodules"]:
        int(nodule["label"])
        _check_interval({"value": nodule["volume_mm3"], "low": nodule.get("found_mm3"), "high": None})
    str(case["patient"] + case["series"])


def finite(value: Any) -> float:
    """Return a number. Raises ValueError where it is none, or infinite."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is not finite")
    return number


def _number_or_none(text: str) -> float | None:
    if text == "":
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"time {text} without its zone")
    return time
