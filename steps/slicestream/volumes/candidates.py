"""From a probability map to labelled candidates: 26-connected components in 3D, each with a score."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from slicestream.volumes.calibration import tempered
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.lungs import Lungs
from slicestream.volumes.mask import Candidate

LEVELS = 65535  # probabilities are kept as uint16: 2 bytes per voxel, steps of 1/65535
MAX_LABELS = 65535  # what uint16 labels hold

Rescore = Callable[[NDArray[np.float64]], NDArray[np.floating[Any]]]  # centres (N, 3) as indices to scores (N,)


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateRule:
    """What makes a candidate.

    Attributes
    ----------
    threshold : least probability of a voxel, between 0 and 1
    min_diameter_mm : components of less volume than a ball of this diameter are dropped
    min_inside : least share of a candidate's voxels inside the lung mask, where there is one; a quarter, since half of
        a 6 mm nodule on the pleura and a third of a 40 mm mass lie inside
    min_score : candidates of a lower score are dropped
    temperature : what the logits of scores are divided by; the order of candidates stays
    """

    threshold: float = 0.5
    min_diameter_mm: float = 2.0
    min_inside: float = 0.25
    min_score: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold {self.threshold}: must be between 0 and 1")
        if self.min_diameter_mm < 0 or not 0 <= self.min_inside <= 1:
            raise ValueError(f"minimum diameter {self.min_diameter_mm} mm, share inside {self.min_inside}")
        if not 0 <= self.min_score < 1:
            raise ValueError(f"minimum score {self.min_score}: must be 0 or more and under 1")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature {self.temperature}: must be over 0")

    def min_voxels(self, voxel_mm3: float) -> int:
        """Return the fewest voxels of a candidate."""
        return max(1, math.ceil(math.pi / 6 * self.min_diameter_mm**3 / voxel_mm3))


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """Labels uint16 (slice, row, column), 1 = best score; `dropped`: how many components went, by reason."""

    labels: NDArray[np.uint16]
    candidates: tuple[Candidate, ...]
    dropped: dict[str, int]


def find_candidates(
    probability: NDArray[np.uint16],
    geometry: Geometry,
    *,
    rule: CandidateRule,
    lungs: Lungs,
    rescore: Rescore | None = None,
) -> Candidates:
    """Label the 26-connected components of probability ≥ threshold that the rule keeps.

    `probability` is in steps of 1/65535, (slice, row, column). The score is the mean probability over a component's
    voxels, or what `rescore` says of those that are large enough and inside; tempered. Labels go from the highest
    score to the lowest (ties: first in memory order).
    """
    components = cc3d.connected_components(probability >= math.ceil(rule.threshold * LEVELS), connectivity=26)
    voxels = _counts(components)
    scores = _sums(components, probability, len(voxels)) / np.maximum(voxels, 1) / LEVELS
    big = voxels >= rule.min_voxels(geometry.voxel_mm3)
    big[0] = False
    inside = lungs.share_inside(components, voxels) >= rule.min_inside
    looked_at = np.flatnonzero(big & inside)
    if rescore is not None and looked_at.size:
        scores[looked_at] = rescore(middles(components)[looked_at])
    scores = tempered(scores, rule.temperature)
    sure = scores >= rule.min_score
    order = np.flatnonzero(big & inside & sure)
    order = order[np.argsort(-scores[order], kind="stable")]
    kept = order[:MAX_LABELS]
    table = np.zeros(len(voxels), np.uint16)
    table[kept] = np.arange(1, len(kept) + 1)
    labels = np.empty(components.shape, np.uint16)
    for out, plane in zip(labels, components, strict=True):  # slice by slice: no second copy in a wide type
        np.take(table, plane, out=out, mode="clip")  # no label is over the table's; "raise" would copy each slice
    found = tuple(
        Candidate(label=new, score=round(float(scores[old]), 6), voxels=int(voxels[old]))
        for new, old in enumerate(kept, start=1)
    )
    dropped = {
        "too_small": int(np.count_nonzero(~big[1:])),
        "outside_lungs": int(np.count_nonzero(big & ~inside)),
        "low_score": int(np.count_nonzero(big & inside & ~sure)),
        "over_65535": len(order) - len(kept),
    }
    return Candidates(labels=labels, candidates=found, dropped=dropped)


def middles(labels: NDArray[Any]) -> NDArray[np.float64]:
    """Return the centre of each label, fractional indices (label, 3) of slice, row, column; label 0 is background."""
    statistics: Any = cc3d.statistics(labels)
    return np.asarray(statistics["centroids"], np.float64)


def _counts(components: NDArray[Any]) -> NDArray[np.int64]:
    total = np.zeros(int(components.max(initial=0)) + 1, np.int64)
    for plane in components:
        counts = np.bincount(plane[plane > 0])
        total[: len(counts)] += counts
    return total


def _sums(components: NDArray[Any], values: NDArray[np.uint16], count: int) -> NDArray[np.float64]:
    # whole numbers under 2^53 add exactly, so no order of adding changes a score
    total = np.zeros(count)
    for plane, value in zip(components, values, strict=True):
        inside = plane > 0
        sums = np.bincount(plane[inside], weights=value[inside])
        total[: len(sums)] += sums
    return total
