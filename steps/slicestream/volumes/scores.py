"""From compared cases to metrics.json: every figure by its name, with its definition and interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicestream.volumes import bootstrap, froc
from slicestream.volumes.calibration import read_calibration
from slicestream.volumes.metrics import HIT_IOU, Case, Nodule

SIZES_MM = {
    "under_3": (0.0, 3.0),
    "3-6": (3.0, 6.0),
    "6-10": (6.0, 10.0),
    "10-30": (10.0, 30.0),
    "30+": (30.0, math.inf),
}
DEFINITIONS = {
    "iou": "shared / (predicted + annotated - shared) voxels of the nodule class",
    "dice": "2 × shared / (predicted + annotated) voxels of the nodule class",
    "pooled": "voxels summed over all slices of all cases, then one ratio",
    "per_slice": "mean over the slices with nodule voxels in reference or prediction",
    "per_slice_empty_is_one": "mean over all slices; empty in both scores 1",
    "per_slice_annotated": "mean over the slices with nodule voxels in the reference (the paper's images)",
    "per_case": "mean over series of the 3D ratio; a series empty in both is left out",
    "sphere": "a reference nodule made of a centre and a diameter: an IoU, Dice or volume error against it is not one "
    "against an outline",
    "nodule": "one label of the reference; a candidate is a 26-connected component of the prediction",
    "hit": f"a candidate whose 3D IoU with a reference nodule is at least {HIT_IOU}",
    "sensitivity": "reference nodules with at least one hit / reference nodules; null where there are none",
    "diameter": "longest distance between two voxel centres of a nodule in one axial slice, plus one pixel, mm; "
    "size bins contain their lower bound",
    "false_positives_per_scan": "candidates that hit no reference nodule / series",
    "froc": "sensitivity and false positives per scan of the candidates with score ≥ threshold",
    "operating_points": "the highest sensitivity of a threshold with at most so many false positives per scan, at the "
    "seven rates of LUNA16; their mean is LUNA16's score, there with interpolation",
    "false_positives_per_scan_at": "the fewest false positives per scan of a threshold with at least that sensitivity; "
    "null where none reaches it",
    "calibration": "of the candidates, the best one where several hit one nodule: mean over tenths of the score, "
    "weighted by candidates, of how far mean score and share of hits are apart (expected calibration error, Guo et al. "
    "2017)",
    "volume_error": "of the nodules hit: (found - annotated) / mean of both, percent; bias is the mean, low and high "
    "are the limits of agreement, bias ± 1.96 standard deviations (Bland and Altman 1986)",
    "interval": "95 % percentile bootstrap over patients; null with fewer than two patients",
}
_OVERLAPS = ("pooled", "per_slice", "per_slice_empty_is_one", "per_slice_annotated", "per_case")


def summarise(
    cases: Sequence[Case], *, split: str, not_scored: Sequence[str] = (), resamples: int = bootstrap.RESAMPLES
) -> dict[str, Any]:
    """Return the content of metrics.json; the same cases give the same numbers, in any order.

    `not_scored` names the series that have no reference.
    """
    cases = sorted(cases, key=lambda case: (case.patient, case.series))
    figures = _figures(cases, resamples)
    nodules = [nodule for case in cases for nodule in case.nodules]
    return {
        "split": split,
        **{ratio: {name: figures[f"{ratio} {name}"] for name in _OVERLAPS} for ratio in ("iou", "dice")},
        "nodules": {
            "sensitivity": {name: figures[f"sensitivity {name}"]["value"] for name in ("all", *SIZES_MM)},
            "false_positives_per_scan": figures["false positives"]["value"],
            "count": len(nodules),
            "counts": {name: sum(_fits(n.diameter_mm, name) for n in nodules) for name in SIZES_MM},
            "forms": {form: sum(n.form == form for n in nodules) for form in ("outline", "sphere")},
            "candidates": sum(case.candidates for case in cases),
            "intervals": {
                "sensitivity": {name: figures[f"sensitivity {name}"] for name in ("all", *SIZES_MM)},
                "false_positives_per_scan": figures["false positives"],
            },
        },
        "volume_error": _volume_error([n for n in nodules if n.found_mm3 is not None]),
        "patients": len({case.patient for case in cases}),
        "cases": len(cases),
        "slices": sum(len(case.annotated) for case in cases),
        "slices_annotated": sum(int(np.count_nonzero(case.annotated)) for case in cases),
        "froc": [_point(*point) for point in froc.curve(cases)],
        **froc.read_off(cases, resamples=resamples),
        "calibration": read_calibration(cases, resamples=resamples),
        "bootstrap": {"resamples": resamples, "seed": bootstrap.SEED, "level": bootstrap.LEVEL, "unit": "patient"},
        "definitions": DEFINITIONS,
        "models": sorted({case.model_hash for case in cases}),
        "not_scored": sorted(not_scored),
        "cases_detail": [_detail(case) for case in cases],
    }


def _figures(cases: Sequence[Case], resamples: int) -> dict[str, dict[str, float | None]]:
    terms = [_terms(case) for case in cases]
    names = list(_terms(None))
    patients = sorted({case.patient for case in cases})
    sums = np.zeros((2, len(patients), len(names)))
    for case, of_case in zip(cases, terms, strict=True):
        sums[:, patients.index(case.patient)] += np.array([of_case[name] for name in names]).T
    intervals = bootstrap.ratio_intervals(sums[0], sums[1], resamples=resamples)
    above, below = sums.sum(axis=1)
    return {
        name: {
            "value": _number(above[i] / below[i]) if below[i] else None,
            "low": _number(intervals[i, 0]),
            "high": _number(intervals[i, 1]),
        }
        for i, name in enumerate(names)
    }


def _terms(case: Case | None) -> dict[str, tuple[float, float]]:
    """Return what a case adds to numerator and denominator of each figure; with None, only the names count."""
    none = np.zeros(0, np.int64)
    predicted, annotated, shared = (case.predicted, case.annotated, case.shared) if case else (none, none, none)
    terms: dict[str, tuple[float, float]] = {}
    for ratio in ("iou", "dice"):
        above, below = _parts(ratio, predicted, annotated, shared)
        some, drawn = below > 0, annotated > 0
        each = np.where(some, above / np.maximum(below, 1), 1.0)
        whole, total = float(above.sum()), float(below.sum())
        terms |= {
            f"{ratio} pooled": (whole, total),
            f"{ratio} per_slice": (float(each[some].sum()), float(some.sum())),
            f"{ratio} per_slice_empty_is_one": (float(each.sum()), float(len(each))),
            f"{ratio} per_slice_annotated": (float(each[drawn].sum()), float(drawn.sum())),
            f"{ratio} per_case": (whole / total, 1.0) if total else (0.0, 0.0),
        }
    nodules = case.nodules if case else ()
    for name in ("all", *SIZES_MM):
        found = [n.score is not None for n in nodules if _fits(n.diameter_mm, name)]
        terms[f"sensitivity {name}"] = (float(sum(found)), float(len(found)))
    terms["false positives"] = (float(len(case.false_positive_scores)) if case else 0.0, 1.0)
    return terms


def _parts(
    ratio: str, predicted: NDArray[np.int64], annotated: NDArray[np.int64], shared: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if ratio == "iou":
        return shared, predicted + annotated - shared
    return 2 * shared, predicted + annotated


def _fits(diameter_mm: float, size: str) -> bool:
    low, high = SIZES_MM.get(size, (0.0, math.inf))
    return low <= diameter_mm < high


def _point(score: float, sensitivity: float | None, rate: float) -> dict[str, float | None]:
    found = None if sensitivity is None else _number(sensitivity)
    return {"threshold": _number(score), "sensitivity": found, "false_positives_per_scan": _number(rate)}


def _volume_error(hit: Sequence[Nodule]) -> dict[str, float | None]:
    pairs = [(n.found_mm3, n.volume_mm3) for n in hit if n.found_mm3 is not None]
    errors = [200 * (found - drawn) / (found + drawn) for found, drawn in pairs]
    if not errors:
        return {"count": 0, "bias": None, "low": None, "high": None}
    bias, reach = float(np.mean(errors)), 1.96 * float(np.std(errors, ddof=1)) if len(errors) > 1 else math.nan
    return {"count": len(errors), "bias": _number(bias), "low": _number(bias - reach), "high": _number(bias + reach)}


def _detail(case: Case) -> dict[str, Any]:
    terms = _terms(case)
    shared, predicted, annotated = (int(n.sum()) for n in (case.shared, case.predicted, case.annotated))
    iou, dice = (terms[f"{ratio} per_case"] for ratio in ("iou", "dice"))
    return {
        "patient": case.patient,
        "series": case.series,
        "slices": len(case.annotated),
        "slices_annotated": int(np.count_nonzero(case.annotated)),
        "voxels": {
            "true_positive": shared,
            "false_positive": predicted - shared,
            "false_negative": annotated - shared,
        },
        "iou": _number(iou[0]) if iou[1] else None,
        "dice": _number(dice[0]) if dice[1] else None,
        "nodules": [
            {
                "label": n.label,
                "diameter_mm": _number(n.diameter_mm),
                "volume_mm3": _number(n.volume_mm3),
                "hit": n.score is not None,
                "score": None if n.score is None else _number(n.score),
                "found_mm3": None if n.found_mm3 is None else _number(n.found_mm3),
                "form": n.form,
                "readers": n.readers,
                "malignancy": None if n.malignancy is None else _number(n.malignancy),
            }
            for n in case.nodules
        ],
        "hits": sum(n.score is not None for n in case.nodules),
        "false_positives": len(case.false_positive_scores),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)
