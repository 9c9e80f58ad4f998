"""The numbers behind the page's plots: FROC, sensitivity by size, volumes, calibration, training curves.

Each function returns plain JSON values, or nothing where the run has no data for the plot; report_plots.js draws them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from slicestream.volumes.documents import Facts

BINS = 10  # of the calibration, over scores in [0, 1]
LEAST = 10  # candidates; fewer say nothing of calibration
Z95 = 1.959964
SIZES = {
    "all": "all sizes",
    "under_3": "under 3 mm",
    "3-6": "3 to < 6 mm",
    "6-10": "6 to < 10 mm",
    "10-30": "10 to < 30 mm",
    "30+": "30 mm and over",
}


def froc(metrics: Facts) -> Facts | None:
    """Return the curve's points and, at the rates of LUNA16, the sensitivities with their intervals."""
    points = [
        {"rate": p["false_positives_per_scan"], "sensitivity": p["sensitivity"], "threshold": p["threshold"]}
        for p in metrics["froc"]
        if p["sensitivity"] is not None
    ]
    rates = [
        {"rate": float(rate), **_interval(found)}
        for rate, found in metrics.get("operating_points", {}).items()
        if rate != "mean" and found["value"] is not None
    ]
    return {"points": points, "rates": rates} if points else None


def sensitivity(metrics: Facts) -> list[Facts]:
    """Return per size its words, the number of reference nodules and the sensitivity with its interval."""
    nodules = metrics["nodules"]
    counts, found = {"all": nodules["count"], **nodules["counts"]}, nodules["intervals"]["sensitivity"]
    return [{"size": words, "count": int(counts[size]), **_interval(found[size])} for size, words in SIZES.items()]


def volumes(metrics: Facts, rows: Mapping[tuple[str, str, int], str]) -> Facts | None:
    """Return Bland and Altman's plot of the nodules hit: mean of both volumes (mm³) and difference (percent of it).

    `rows` leads from patient, series and reference label to the anchor of the nodule's row in the page.
    """
    points = []
    for case in metrics["cases_detail"]:
        for nodule in case["nodules"]:
            drawn, found = float(nodule["volume_mm3"]), float(nodule.get("found_mm3") or 0)
            if found <= 0:
                continue
            row = rows.get((case["patient"], case["series"], int(nodule["label"])), "")
            mean_mm3, percent = (drawn + found) / 2, 200 * (found - drawn) / (found + drawn)
            points.append({"mean": round(mean_mm3, 1), "difference": round(percent, 2), "row": row})
    limits = {name: metrics.get("volume_error", {}).get(name) for name in ("bias", "low", "high")}
    return {"points": points, **limits} if points else None


def calibration(nodules: Sequence[Facts]) -> list[Facts]:
    """Return per bin of the score: mean score, share of true positives with Wilson's 95 % interval, count.

    Of the candidates that were compared with readers; nothing where they are fewer than LEAST.
    """
    judged = [
        (float(row["score"]), row["status"] == "true_positive")
        for row in nodules
        if row["status"] in ("true_positive", "false_positive") and row["score"] is not None
    ]
    if len(judged) < LEAST:
        return []
    found = []
    for number in range(BINS):
        inside = [pair for pair in judged if min(int(pair[0] * BINS), BINS - 1) == number]
        if inside:
            hits = sum(hit for _, hit in inside)
            low, high = wilson(hits, len(inside))
            score = sum(score for score, _ in inside) / len(inside)
            share = hits / len(inside)
            found.append({"score": score, "value": share, "low": low, "high": high, "count": len(inside)})
    return found


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927)."""
    share, z2 = hits / count, Z95 * Z95
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    reach = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


def training(history: Mapping[str, Sequence[float | None]]) -> dict[str, list[Facts]]:
    """Return the curves by epoch: losses in one list, scores in [0, 1] (IoU, Dice) in another."""
    count = max((len(column) for column in history.values()), default=0)
    epochs = history.get("epoch") or [float(n) for n in range(1, count + 1)]
    curves: dict[str, list[Facts]] = {"loss": [], "agreement": []}
    for name, column in history.items():
        kind = "loss" if "loss" in name else "agreement" if "iou" in name or "dice" in name else ""
        words = name.replace("_", " ").replace("iou", "IoU").replace("dice", "Dice")
        if kind:
            pairs = zip(epochs, column, strict=True)
            curves[kind] += [{"line": words, "epoch": x, "value": y} for x, y in pairs if None not in (x, y)]
    return {kind: points for kind, points in curves.items() if points}


def _interval(entry: Mapping[str, Any]) -> Facts:
    return {name: entry[name] for name in ("value", "low", "high")}
