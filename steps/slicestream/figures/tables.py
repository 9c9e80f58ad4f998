"""The rows of the page's tables, worst first, and the anchors that lead from one to another."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from slicestream.figures.facts import Record
from slicestream.volumes.documents import Facts

_ORDER = ("missed", "false_positive", "true_positive", "candidate")
# workflow input <- parameter of a step's run record, for the command that repeats a run
_INPUTS = (
    ("negatives", "preprocess", "negatives"),
    ("seed", "split", "seed"),
    ("recipe", "train", "recipe: name"),
    ("epochs", "train", "recipe: epochs"),
    ("threshold", "infer", "threshold"),
    ("min_score", "infer", "min score"),
    ("flips", "infer", "flips"),
)


def case_rows(metrics: Facts) -> list[Facts]:
    """Return the scored series, least 3D IoU first; of equal ones that with most missed and false nodules first."""
    return sorted(
        metrics["cases_detail"],
        key=lambda case: (
            case["iou"] is None,
            case["iou"] or 0.0,
            case["hits"] - len(case["nodules"]) - case["false_positives"],
            case["series"],
        ),
    )


def nodule_rows(nodules: Iterable[Facts]) -> list[Facts]:
    """Return the rows with an `anchor` each: missed nodules, large ones first, then false positives, sure ones first.

    Then true positives, unsure ones first. Where nobody compared: candidates, sure ones first.
    """
    rows = [{**row, "anchor": f"n-{number}"} for number, row in enumerate(nodules, start=1)]

    def badness(row: Facts) -> tuple[int, float]:
        score = row["score"] or 0.0
        by = {"missed": -(row["longest_diameter_mm"] or 0.0), "true_positive": score}
        return _ORDER.index(row["status"]), by.get(row["status"], -score)

    return sorted(rows, key=badness)


def anchors(rows: Iterable[Facts]) -> dict[tuple[str, str, int], str]:
    """Return the anchors of the rows by patient, series and label of the reference nodule that is hit."""
    return {
        (row["patient"], row["series"], int(row["matched"])): row["anchor"]
        for row in rows
        if row["matched"] is not None and row["status"] == "true_positive"
    }


def parameters(records: Sequence[Record]) -> dict[str, list[tuple[str, Any]]]:
    """Return per step the parameters of its run records, nested ones by dotted name; what differs stands as a list."""
    found: dict[str, dict[str, list[Any]]] = {}
    for record in records:
        for name, value in flat(record.parameters):
            values = found.setdefault(record.step, {}).setdefault(name, [])
            if value not in values and name not in ("notice", "images per second"):
                values.append(value)
    return {
        step: [(name, values[0] if len(values) == 1 else values) for name, values in facts.items() if values]
        for step, facts in found.items()
    }


def command(records: Sequence[Record], *, scored: bool) -> list[str]:
    """Return the words of the command that repeats the run: the workflow, and the inputs that the records tell."""
    steps = {record.step for record in records}
    workflow = "main" if "train" in steps else "score" if scored else "segment"
    words = ["cwltool --no-container", f"workflows/{workflow}.cwl", "--cohort COHORT", "--pseudonym_key KEY"]
    if workflow != "main":
        words.append("--model MODEL")
    known = parameters(records)
    for port, step, name in _INPUTS:
        value = dict(known.get(step, ())).get(name)
        if value is True:
            words.append(f"--{port}")
        elif value is not None and value is not False and not isinstance(value, list):
            words.append(f"--{port} {shlex.quote(str(value))}")
    return words


def flat(card: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Return the facts of a nested card as (name: name, value)."""
    facts: list[tuple[str, Any]] = []
    for name, value in card.items():
        words = f"{before}{name}".replace("_", " ")
        facts += flat(value, f"{words}: ") if isinstance(value, Mapping) else [(words, value)]
    return facts
