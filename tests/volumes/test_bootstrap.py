import numpy as np
import pytest

from slicestream.volumes.bootstrap import ratio_intervals


def test_interval_of_a_mean_is_close_to_the_normal_one():
    values = np.random.default_rng(1).normal(10.0, 2.0, (400, 1))
    low, high = ratio_intervals(values, np.ones_like(values))[0]
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_constant_data_have_no_width():
    intervals = ratio_intervals(np.full((7, 2), 3.0), np.full((7, 2), 4.0))
    assert intervals.tolist() == [[0.75, 0.75], [0.75, 0.75]]


def test_same_seed_gives_the_same_interval():
    values = np.random.default_rng(2).random((9, 3))
    first, again = (ratio_intervals(values, np.ones_like(values), resamples=50) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, ratio_intervals(values, np.ones_like(values), resamples=50, seed=1))


def test_draws_that_say_nothing_are_left_out():
    # only one of two patients has a nodule: draws without that patient have nothing to find
    intervals = ratio_intervals(np.array([[1.0], [0.0]]), np.array([[1.0], [0.0]]))
    assert intervals.tolist() == [[1.0, 1.0]]


def test_one_patient_or_an_empty_figure_has_no_interval():
    assert np.isnan(ratio_intervals(np.ones((1, 1)), np.ones((1, 1)))).all()
    assert np.isnan(ratio_intervals(np.zeros((5, 1)), np.zeros((5, 1)))).all()
