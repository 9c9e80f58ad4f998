"""Dividing patients: fractions of the images, nobody on two sides, enough patients to measure on."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from slicestream.errors import OptionError, SplitError
from slicestream.volumes.patients import SIDES, Fractions, divide


def cohort_of(patients: int, seed: int = 0) -> dict[str, int]:
    rng = np.random.default_rng(seed)
    return {f"{k:016x}": int(rng.integers(5, 60)) for k in range(patients)}


def shares(images: dict[str, int], sides: dict[str, str]) -> dict[str, float]:
    total = sum(images.values())
    return {side: sum(n for p, n in images.items() if sides[p] == side) / total for side in SIDES}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("patients", "tolerance"), [(24, 0.04), (100, 0.01), (400, 0.005)])
def test_sides_have_their_fractions_of_the_images(patients: int, tolerance: float, seed: int) -> None:
    images = cohort_of(patients, seed)
    found = shares(images, divide(images, Fractions(), seed))
    assert found == pytest.approx({"training": 0.8, "validation": 0.1, "test": 0.1}, abs=tolerance)


def test_other_fractions_are_kept_too() -> None:
    images = cohort_of(200)
    found = shares(images, divide(images, Fractions(training=0.5, validation=0.2, test=0.3), 0))
    assert found == pytest.approx({"training": 0.5, "validation": 0.2, "test": 0.3}, abs=0.01)


@pytest.mark.parametrize(("patients", "least"), [(3, 1), (4, 1), (9, 1), (10, 2), (20, 3), (24, 3)])
def test_every_side_has_its_least_number_of_patients(patients: int, least: int) -> None:
    for seed in range(5):
        counts = Counter(divide(cohort_of(patients, seed), Fractions(), seed).values())
        assert min(counts[side] for side in SIDES) >= least
        assert sum(counts.values()) == patients


def test_one_huge_patient_does_not_empty_a_side() -> None:
    images = cohort_of(8) | {"f" * 16: 5000}
    assert set(divide(images, Fractions(), 0).values()) == set(SIDES)


def test_the_order_of_patients_does_not_matter() -> None:
    images = cohort_of(30)
    backwards = dict(reversed(images.items()))
    assert divide(images, Fractions(), 7) == divide(backwards, Fractions(), 7)


def test_another_seed_gives_another_split() -> None:
    images = cohort_of(30)
    assert divide(images, Fractions(), 0) != divide(images, Fractions(), 1)


def test_two_patients_are_too_few_and_score_is_named() -> None:
    with pytest.raises(SplitError, match=r"2 patients with annotated slices; need 3 or more.*make score"):
        divide(cohort_of(2), Fractions(), 0)


@pytest.mark.parametrize("values", [(0.8, 0.1, 0.2), (1.0, 0.0, 0.0), (1.2, -0.1, -0.1)])
def test_fractions_must_be_positive_and_sum_to_one(values: tuple[float, float, float]) -> None:
    with pytest.raises(OptionError, match="need three positive numbers that sum to 1"):
        Fractions(training=values[0], validation=values[1], test=values[2])
