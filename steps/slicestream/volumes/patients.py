"""Dividing patients between training, validation and test, so that nobody is on two sides."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from slicestream.errors import OptionError, SplitError

SIDES = ("training", "validation", "test")
_TRIES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Fractions:
    """Shares of the images for each side; the paper's Table I has 80, 10 and 10 %."""

    training: float = 0.8
    validation: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        values = (self.training, self.validation, self.test)
        if min(values) <= 0 or abs(sum(values) - 1.0) > 1e-6:
            raise OptionError(
                f"--fractions {' '.join(f'{v:g}' for v in values)}: need three positive numbers that sum to 1, "
                "such as 0.8 0.1 0.1."
            )


def divide(images: Mapping[str, int], fractions: Fractions, seed: int) -> dict[str, str]:
    """Return patient → side, from the number of images of each patient (all positive).

    Of 100 orders drawn by hash from the seed, the one whose sides come closest to the fractions is taken; patients
    fill the test side first, then validation, and the rest trains. Small sides get a least number of patients.

    Raises
    ------
    SplitError
        Fewer than three patients.
    """
    if len(images) < len(SIDES):
        raise SplitError(
            f"{len(images)} patients with annotated slices; need 3 or more, one for each of training, validation and "
            "test. To measure a trained model on them use the workflow score (`make score`), which trains nothing."
        )
    tries = (_filled(images, _order(images, f"{seed}/{k}"), fractions) for k in range(_TRIES))
    best = min(tries, key=lambda sides: _distance(images, sides, fractions))
    return dict(sorted(best.items()))


def _order(patients: Mapping[str, int], seed: str) -> list[str]:
    return sorted(patients, key=lambda patient: hashlib.sha256(f"{seed}/{patient}".encode()).digest())


def _filled(images: Mapping[str, int], order: list[str], fractions: Fractions) -> dict[str, str]:
    total, least = sum(images.values()), _least_patients(len(order))
    sides, waiting = dict.fromkeys(order, "training"), list(order)
    for side, fraction in (("test", fractions.test), ("validation", fractions.validation)):
        count, patients = 0, 0
        # stop where one more would lead further from the goal
        while waiting and (patients < least or count + images[waiting[0]] / 2 < fraction * total):
            if len(waiting) <= (2 if side == "test" else 1):  # leave one for each side to come
                break
            patient = waiting.pop(0)
            sides[patient] = side
            count, patients = count + images[patient], patients + 1
    return sides


def _least_patients(patients: int) -> int:
    """Return how many patients validation and test must have: figures of one or two patients say little."""
    return 3 if patients >= 20 else 2 if patients >= 10 else 1


def _distance(images: Mapping[str, int], sides: Mapping[str, str], fractions: Fractions) -> float:
    total = sum(images.values())
    counts = dict.fromkeys(SIDES, 0)
    for patient, side in sides.items():
        counts[side] += images[patient]
    goals = (fractions.training, fractions.validation, fractions.test)
    return sum(abs(counts[side] / total - goal) for side, goal in zip(SIDES, goals, strict=True))
