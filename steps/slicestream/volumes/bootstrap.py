"""How far a figure may move with other patients: percentile bootstrap, patients drawn with replacement.

Efron B, Tibshirani R (1993), An Introduction to the Bootstrap, chapter 13.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
SEED = 0
LEVEL = 0.95
TAILS = (50 * (1 - LEVEL), 50 * (1 + LEVEL))  # percentiles


def ratio_intervals(
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
) -> NDArray[np.float64]:
    """Return low and high, (figure, 2), of figures that are a ratio of sums over patients.

    `numerators` and `denominators` are (patient, figure). All figures see the same draws. A draw whose denominator is 0
    says nothing of that figure and is left out. NaN with fewer than two patients, or where no draw says anything.
    """
    patients, figures = numerators.shape
    if patients < 2:
        return np.full((figures, 2), np.nan)
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(patients, np.full(patients, 1 / patients), size=resamples).astype(np.float64)
    above, below = weights @ numerators, weights @ denominators
    tails = [50 * (1 - level), 50 * (1 + level)]
    intervals = np.full((figures, 2), np.nan)
    for figure in range(figures):
        said = below[:, figure] > 0
        if said.any():
            intervals[figure] = np.percentile(above[said, figure] / below[said, figure], tails)
    return intervals


def weights(patients: int, resamples: int) -> NDArray[np.float64]:
    """Return how often each patient counts: once in the first row, then as drawn; one row with fewer than two."""
    once = np.ones((1, patients))
    if patients < 2:
        return once
    drawn = np.random.default_rng(SEED).multinomial(patients, np.full(patients, 1 / patients), size=resamples)
    return np.concatenate((once, drawn.astype(np.float64)))
