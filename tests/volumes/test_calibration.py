"""Scores against hits: the calibration error, and the temperature that makes it smaller."""

import numpy as np
import pytest
from test_froc import case

from slicestream.volumes.calibration import calibration_error, fit_temperature, read_calibration, tempered
from slicestream.volumes.candidates import CandidateRule, find_candidates
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.lungs import no_lungs

GENERATOR = np.random.default_rng(0)
CHANCES = GENERATOR.uniform(0.05, 0.95, 20_000)
HITS = GENERATOR.uniform(size=20_000) < CHANCES  # a score that is the chance of a hit is calibrated


def test_scores_that_are_the_chance_of_a_hit_have_hardly_an_error() -> None:
    assert calibration_error(CHANCES, HITS) < 0.02


def test_error_of_a_constructed_case() -> None:
    # of three at 0.95 one hits: 0.95 - 1/3; the one at 0.25 hits: 0.75
    scores, hits = np.array([0.95, 0.95, 0.95, 0.25]), np.array([True, False, False, True])
    assert calibration_error(scores, hits) == pytest.approx((3 * (0.95 - 1 / 3) + 0.75) / 4)
    assert calibration_error(np.ones(2), np.ones(2, np.bool_)) == 0


@pytest.mark.parametrize("wrong_by", [0.4, 3.0])
def test_temperature_undoes_what_made_the_scores_too_sure_or_too_timid(wrong_by: float) -> None:
    spoilt = tempered(CHANCES, wrong_by)
    found = fit_temperature(spoilt, HITS)
    assert found == pytest.approx(1 / wrong_by, rel=0.05)
    assert calibration_error(tempered(spoilt, found), HITS) < 0.02 < calibration_error(spoilt, HITS)


def test_where_hits_alone_or_nothing_was_found_scores_stay() -> None:
    assert fit_temperature(np.array([0.8, 0.9]), np.array([True, True])) == 1
    assert fit_temperature(np.array([0.8, 0.9]), np.array([False, False])) == 1
    assert fit_temperature(np.zeros(0), np.zeros(0, np.bool_)) == 1


def test_where_the_error_would_grow_scores_stay() -> None:
    # misses of scores near 1 cost much cross-entropy: what is best for them makes all others too timid
    scores = np.repeat([0.9, 0.999999], (200, 20))
    hits = np.concatenate((np.arange(200) < 180, np.arange(20) < 18))
    assert calibration_error(tempered(scores, 1.5), hits) > 5 * calibration_error(scores, hits)
    assert fit_temperature(scores, hits) == 1


@pytest.mark.parametrize("temperature", [0.05, 0.7, 4.0, 20.0])
def test_a_temperature_changes_no_order(temperature: float) -> None:
    scores = np.sort(GENERATOR.uniform(0.2, 0.8, 1000))
    assert (np.diff(tempered(scores, temperature)) > 0).all()
    assert (tempered(scores, 1.0) == scores).all()


def test_candidates_keep_voxels_and_order_and_get_tempered_scores() -> None:
    probability = np.zeros((1, 32, 32), np.uint16)
    for place, level in enumerate((0.6, 0.9, 0.7)):
        probability[0, 4:8, 10 * place : 10 * place + 4] = round(level * 65535)
    geometry = Geometry(shape=probability.shape, spacing_mm=(2.0, 1.0, 1.0))
    plain, warm = (
        find_candidates(probability, geometry, rule=CandidateRule(temperature=t), lungs=no_lungs("")) for t in (1, 2)
    )
    assert np.array_equal(plain.labels, warm.labels)
    assert [c.score for c in plain.candidates] == pytest.approx([0.9, 0.7, 0.6], abs=1e-4)
    # logit 2.197 / 2 and so on
    assert [c.score for c in warm.candidates] == pytest.approx([0.75, 0.604, 0.5505], abs=1e-3)


def test_a_cohorts_error_counts_every_false_positive_and_each_nodule_once() -> None:
    cases = [case([0.9, None], [0.95], patient=1), case([0.8], [], patient=2)]
    figure = read_calibration(cases)
    assert figure["candidates"] == 3
    value = (abs(0.9 + 0.95 - 1) + abs(0.8 - 1)) / 3
    assert figure["error"]["value"] == pytest.approx(value, abs=1e-6)  # type: ignore[index]
    assert figure["error"]["low"] == pytest.approx(0.2)  # type: ignore[index]
    nothing = {"candidates": 0, "error": {"value": None, "low": None, "high": None}}
    assert read_calibration([case([None], [])]) == read_calibration([]) == nothing
