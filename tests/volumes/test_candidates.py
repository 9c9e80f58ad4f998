from dataclasses import replace

import numpy as np
import pytest

from made import ball
from slicestream.volumes.candidates import LEVELS, CandidateRule, find_candidates
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.lungs import Lungs, no_lungs

OFF = no_lungs("switched off")


def levels(probability):
    return np.rint(np.asarray(probability) * LEVELS).astype(np.uint16)


def find(probability, *, spacing_mm=(1.0, 1.0, 1.0), lungs=OFF, **rule):
    array = levels(probability)
    return find_candidates(
        array, Geometry(shape=array.shape, spacing_mm=spacing_mm), rule=CandidateRule(**rule), lungs=lungs
    )


def test_voxels_that_touch_by_a_corner_are_one_candidate():
    probability = np.zeros((4, 8, 8))
    probability[[0, 1, 2], [1, 2, 3], [1, 2, 3]] = 0.9
    found = find(probability, min_diameter_mm=0.0)
    assert len(found.candidates) == 1
    assert found.candidates[0].voxels == 3


def test_threshold_itself_counts_as_nodule():
    found = find(np.full((1, 4, 4), 0.5), threshold=0.5, min_diameter_mm=0.0)
    assert found.candidates[0].voxels == 16


def test_score_is_the_mean_probability_and_labels_go_from_the_best_down():
    probability = np.zeros((3, 20, 20))
    probability[1, 0:4, 0:4] = 0.6
    probability[1, 10:14, 0:4] = 0.8
    probability[1, 10:12, 0:4] = 1.0
    found = find(probability)
    assert [c.score for c in found.candidates] == [pytest.approx(0.9, abs=1e-4), pytest.approx(0.6, abs=1e-4)]
    assert [c.label for c in found.candidates] == [1, 2]
    assert np.array_equal(found.labels == 1, probability >= 0.8)
    assert found.labels.dtype == np.uint16


@pytest.mark.parametrize(("spacing_mm", "least"), [((1.0, 1.0, 1.0), 5), ((2.0, 0.5, 0.5), 9), ((5.0, 1.0, 1.0), 1)])
def test_components_under_a_ball_of_2_mm_are_dropped(spacing_mm, least):
    # a ball of 2 mm holds 4.19 mm³
    probability = np.zeros((3, 30, 30))
    probability[1, 5, 0:least] = 0.9
    probability[1, 20, 0 : least - 1] = 0.9
    found = find(probability, spacing_mm=spacing_mm)
    assert [c.voxels for c in found.candidates] == [least]
    assert found.dropped["too_small"] == (1 if least > 1 else 0)


def test_candidates_with_less_than_a_quarter_inside_the_lungs_are_dropped():
    probability = np.zeros((2, 20, 20))
    probability[:, 2:6, 0:8] = 0.9  # wholly inside
    probability[:, 8:12, 9:17] = 0.9  # one of eight columns inside
    probability[:, 14:18, 8:16] = 0.9  # two of eight: kept
    inside = np.zeros((2, 10, 10), bool)
    inside[:, :, :5] = True  # columns 0 to 9
    found = find(probability, lungs=Lungs(inside=inside, steps=(1, 2, 2)))
    assert len(found.candidates) == 2
    assert not found.labels[:, 8:12].any()
    assert found.dropped["outside_lungs"] == 1


def test_candidates_under_the_least_score_are_dropped_and_counted():
    probability = np.zeros((2, 20, 20))
    probability[:, 2:6, 2:6] = 0.9
    probability[:, 10:14, 2:6] = 0.7
    probability[:, 10:14, 12:16] = 0.6
    found = find(probability, min_score=0.69)
    assert [candidate.score for candidate in found.candidates] == pytest.approx([0.9, 0.7], abs=1e-4)
    assert found.dropped["low_score"] == 1
    assert len(find(probability).candidates) == 3


def test_nothing_over_the_threshold_gives_an_empty_mask():
    found = find(np.full((2, 4, 4), 0.2))
    assert found.candidates == ()
    assert not found.labels.any()
    assert found.dropped == {"too_small": 0, "outside_lungs": 0, "low_score": 0, "over_65535": 0}


def test_more_components_than_uint16_holds_keep_the_best_and_say_so():
    probability = np.zeros((1, 600, 600))
    probability[0, ::2, ::2] = 0.6
    probability[0, 0, 0] = 0.99
    found = find(probability, min_diameter_mm=0.0)
    assert len(found.candidates) == 65535
    assert found.dropped["over_65535"] == 300 * 300 - 65535
    assert found.labels[0, 0, 0] == 1


def test_ball_keeps_its_voxels():
    shape = ball((20, 40, 40), (10, 20, 20), 8.0)
    found = find(np.where(shape, 0.95, 0.05))
    assert np.array_equal(found.labels == 1, shape)


@pytest.mark.parametrize(
    "bad", [{"threshold": 0.0}, {"threshold": 1.0}, {"min_diameter_mm": -1.0}, {"min_inside": 2.0}]
)
def test_rule_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match=r"threshold|minimum"):
        CandidateRule(**bad)


def test_scores_may_be_given_anew_by_the_centres_of_what_is_large_enough():
    probability = np.zeros((3, 20, 20))
    probability[1, 0:4, 0:4] = 0.9
    probability[1, 10:14, 2:6] = 0.8
    probability[1, 18, 18] = 0.9  # too small to be asked about
    asked = []

    def rescore(centres):
        asked.append(centres)
        return centres[:, 1] / 20

    array = levels(probability)
    geometry = Geometry(shape=array.shape, spacing_mm=(1.0, 1.0, 1.0))
    rule = CandidateRule(min_score=0.5)
    found = find_candidates(array, geometry, rule=rule, lungs=OFF, rescore=rescore)
    assert np.concatenate(asked).tolist() == [[1.0, 1.5, 1.5], [1.0, 11.5, 3.5]]
    assert [(c.label, c.score, c.voxels) for c in found.candidates] == [(1, 0.575, 16)]
    assert found.dropped["low_score"] == 1
    assert found.labels[1, 12, 4] == 1
    milder = replace(rule, min_score=0.0, temperature=2.0)
    tempered = find_candidates(array, geometry, rule=milder, lungs=OFF, rescore=rescore)
    assert [c.score for c in tempered.candidates] == pytest.approx([0.53771, 0.22164], abs=1e-4)
