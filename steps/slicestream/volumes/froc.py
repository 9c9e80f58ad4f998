"""Sensitivity against false positives: the curve, and what is read off it.

Operating points and their mean as in LUNA16 (Setio et al. 2017, arXiv:1612.08012); read without interpolation, so that
every figure is one that a threshold gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from slicestream.volumes import bootstrap
from slicestream.volumes.metrics import Case

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
SENSITIVITY = 0.85
Figure = dict[str, float | None]


def curve(cases: Sequence[Case]) -> list[tuple[float, float | None, float]]:
    """Return (score, sensitivity, false positives per scan) of the candidates with at least that score, best first."""
    scores, found, wrong = _added(cases, [case.patient for case in cases])
    nodules = sum(len(case.nodules) for case in cases)
    hits, misses = found.sum(axis=1).cumsum(), wrong.sum(axis=1).cumsum()
    return [
        (float(score), float(hit / nodules) if nodules else None, float(miss / len(cases)))
        for score, hit, miss in zip(scores, hits, misses, strict=True)
    ]


def read_off(cases: Sequence[Case], *, resamples: int = bootstrap.RESAMPLES) -> dict[str, Mapping[str, Figure]]:
    """Return `operating_points` (by rate, as "0.125", and "mean") and `false_positives_per_scan_at` (by sensitivity).

    Each figure has `value`, `low`, `high`: the 95 % interval over patients drawn anew, null with fewer than two; the
    value is null where there is no nodule, or where no threshold reaches the sensitivity.
    """
    patients = [case.patient for case in cases]
    _, found, wrong = _added(cases, patients)
    names = sorted(set(patients))
    nodules, scans = np.zeros(len(names)), np.zeros(len(names))
    for case in cases:
        nodules[names.index(case.patient)] += len(case.nodules)
        scans[names.index(case.patient)] += 1
    rows = [_figures(found, wrong, nodules, scans, weight) for weight in bootstrap.weights(len(names), resamples)]
    columns = np.array(rows).T
    labels = [f"{rate:g}" for rate in RATES]
    figures = [_figure(column) for column in columns]
    return {
        "operating_points": dict(zip((*labels, "mean"), figures[:-1], strict=True)),
        "false_positives_per_scan_at": {f"{SENSITIVITY:g}": figures[-1]},
    }


def _added(cases: Sequence[Case], patients: Sequence[str]) -> tuple[NDArray[np.float64], ...]:
    """Return the scores that occur, best first, and what each adds per patient: nodules found, false positives."""
    names = sorted(set(patients))
    scores = sorted({*_hits(cases), *(score for case in cases for score in case.false_positive_scores)}, reverse=True)
    place = {score: row for row, score in enumerate(scores)}
    found, wrong = np.zeros((2, len(scores), len(names)))
    for case, patient in zip(cases, patients, strict=True):
        column = names.index(patient)
        for score in _hits([case]):
            found[place[score], column] += 1
        for score in case.false_positive_scores:
            wrong[place[score], column] += 1
    return np.array(scores), found, wrong


def _hits(cases: Sequence[Case]) -> list[float]:
    return [nodule.score for case in cases for nodule in case.nodules if nodule.score is not None]


def _figures(
    found: NDArray[np.float64],
    wrong: NDArray[np.float64],
    nodules: NDArray[np.float64],
    scans: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> list[float]:
    """Return sensitivity at each rate, their mean, the rate at the sensitivity (infinite: none); NaN without nodule."""
    count, images = float(nodules @ weight), float(scans @ weight)
    if not count or not images:
        return [np.nan] * (len(RATES) + 2)
    sensitivity = np.concatenate(([0.0], (found @ weight).cumsum() / count))
    rate = np.concatenate(([0.0], (wrong @ weight).cumsum() / images))
    at = [float(sensitivity[rate <= limit + 1e-9].max()) for limit in RATES]
    enough = rate[sensitivity >= SENSITIVITY - 1e-9]
    return [*at, float(np.mean(at)), float(enough.min()) if enough.size else np.inf]


def _figure(column: NDArray[np.float64]) -> Figure:
    """Return value and interval; a draw without a nodule is left out, one that never gets there counts as infinite."""
    drawn = column[1:][~np.isnan(column[1:])]
    low, high = np.percentile(drawn, bootstrap.TAILS, method="nearest") if drawn.size else (np.nan, np.nan)
    numbers = zip(("value", "low", "high"), (column[0], low, high), strict=True)
    return {name: round(float(number), 6) if np.isfinite(number) else None for name, number in numbers}
