"""Scores as probabilities: how far they are from it, and one number that brings them nearer.

Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599. What is calibrated is the score of a
candidate against whether it hits a nodule.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slicestream.volumes import bootstrap
from slicestream.volumes.metrics import Case

BINS = 10
_TEMPERATURES = (0.05, 20.0)
_EDGE = 1e-6  # scores are written with six decimals


def tempered(scores: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return scores with their logits divided by `temperature`: in the same order, the very same at 1."""
    if temperature == 1:
        return scores
    return np.asarray(1 / (1 + np.exp(-_logits(scores) / temperature)))


def fit_temperature(scores: NDArray[np.float64], hits: NDArray[np.bool_]) -> float:
    """Return the temperature with the least cross-entropy of scores against hits, 0.05 to 20.

    1, which changes nothing, where either kind is missing or where it would make the calibration error larger.
    """
    if not hits.any() or hits.all():
        return 1.0
    logits = _logits(scores)
    low, high = (1 / temperature for temperature in reversed(_TEMPERATURES))
    for _ in range(60):  # the slope of the cross-entropy rises with 1 / temperature: halve where it changes its sign
        middle = (low + high) / 2
        slope = float(logits @ (1 / (1 + np.exp(-middle * logits)) - hits))
        low, high = (low, middle) if slope > 0 else (middle, high)
    found = round(2 / (low + high), 4)
    better = calibration_error(tempered(scores, found), hits) < calibration_error(scores, hits)
    return found if better else 1.0


def calibration_error(scores: NDArray[np.float64], hits: NDArray[np.bool_]) -> float:
    """Return the expected calibration error: over tenths of the score, |mean score - share of hits| by candidates."""
    sums = _sums(scores, hits)
    return float(np.abs(sums[1] - sums[2]).sum() / sums[0].sum()) if len(scores) else 0.0


def read_calibration(cases: Sequence[Case], *, resamples: int = bootstrap.RESAMPLES) -> dict[str, object]:
    """Return `candidates` and `error` (`value`, `low`, `high`: 95 % interval over patients drawn anew, as elsewhere).

    Of several candidates that hit one nodule the best counts.
    """
    names = sorted({case.patient for case in cases})
    sums = np.zeros((len(names), 3, BINS))
    for case in cases:
        found = [nodule.score for nodule in case.nodules if nodule.score is not None]
        scores = np.array([*found, *case.false_positive_scores], np.float64)
        sums[names.index(case.patient)] += _sums(scores, np.arange(len(scores)) < len(found))
    weights = bootstrap.weights(len(names), resamples)
    count, score, hit = np.tensordot(weights, sums, axes=1).transpose(1, 0, 2)
    some = count.sum(axis=1) > 0
    errors = np.abs(score - hit).sum(axis=1)[some] / count.sum(axis=1)[some]
    drawn = errors[1:]
    low, high = np.percentile(drawn, bootstrap.TAILS) if drawn.size else (None, None)
    numbers = {"value": errors[0] if some.any() else None, "low": low, "high": high}
    return {
        "candidates": int(sums[:, 0].sum()),
        "error": {name: None if number is None else round(float(number), 6) for name, number in numbers.items()},
    }


def _logits(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(scores, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inside / (1 - inside)))


def _sums(scores: NDArray[np.float64], hits: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (3, bin): candidates, sum of their scores, hits among them."""
    place = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    return np.stack([np.bincount(place, weights, BINS) for weights in (np.ones(len(scores)), scores, hits)])
