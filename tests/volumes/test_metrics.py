import numpy as np
import pytest

from made import ball, mask, reference
from slicestream.errors import ArtefactError
from slicestream.volumes.metrics import bounding_box, compare, longest_diameter_mm, match


def boxes(*spans, shape=(4, 20, 20)):
    labels = np.zeros(shape, np.uint16)
    for label, span in spans:
        labels[span] = label
    return labels


def test_disc_of_21_pixels_across_measures_21_pixels():
    disc = ball((1, 31, 31), (0, 15, 15), 10.0)
    assert longest_diameter_mm(disc, (5.0, 1.0, 1.0)) == pytest.approx(21.0)
    assert longest_diameter_mm(disc, (5.0, 0.5, 0.5)) == pytest.approx(10.5)


def test_diameter_is_taken_within_a_slice_and_not_across_slices():
    rod = boxes((1, np.s_[0:4, 5, 5]))
    assert longest_diameter_mm(rod > 0, (10.0, 1.0, 1.0)) == pytest.approx(1.0)


def test_diameter_of_a_diagonal_is_its_length_plus_a_pixel():
    line = np.zeros((1, 9, 9), bool)
    line[0, range(4), range(4)] = True
    assert longest_diameter_mm(line, (1.0, 1.0, 1.0)) == pytest.approx(3 * 2**0.5 + 1)


def test_diameter_of_random_shapes_equals_the_brute_force_one():
    generator = np.random.default_rng(3)
    for _ in range(20):
        shape = generator.random((2, 12, 9)) > 0.8
        points = [np.argwhere(plane) * (0.7, 0.9) for plane in shape]
        brute = max(np.linalg.norm(a - b) for plane in points for a in plane for b in plane)
        assert longest_diameter_mm(shape, (2.0, 0.7, 0.9)) == pytest.approx(brute + 0.8)


def test_diameter_of_nothing_is_zero():
    assert longest_diameter_mm(np.zeros((2, 4, 4), bool), (1.0, 1.0, 1.0)) == 0.0


def test_bounding_box_holds_every_voxel_and_no_more():
    box = bounding_box(boxes((1, np.s_[1:3, 4:7, 8:9])) > 0)
    assert box == np.s_[1:3, 4:7, 8:9]


def test_iou_of_two_shifted_squares_is_the_hand_computed_one():
    # 5 × 5 against 5 × 5, three columns shared: 15 / 35
    found = match(boxes((7, np.s_[1, 5:10, 7:12])), boxes((3, np.s_[1, 5:10, 5:10])))
    assert found.reference_labels == (3,)
    assert found.candidate_labels == (7,)
    assert found.iou == pytest.approx(np.array([[15 / 35]]))


def test_hit_needs_an_iou_of_a_tenth():
    nodule = boxes((1, np.s_[1, 0:10, 0:10]))
    tenth = match(boxes((1, np.s_[1, 0:1, 0:10])), nodule)
    less = match(boxes((1, np.s_[1, 0:1, 0:9])), nodule)
    assert tenth.candidates_of(1) == (1,)
    assert tenth.reference_of(1) == 1
    assert less.candidates_of(1) == ()
    assert less.reference_of(1) == 0


def test_one_candidate_over_two_nodules_finds_both():
    found = match(boxes((1, np.s_[1, 0:5, 0:11])), boxes((1, np.s_[1, 0:5, 0:5]), (2, np.s_[1, 0:5, 6:11])))
    assert found.candidates_of(1) == (1,)
    assert found.candidates_of(2) == (1,)


def test_two_candidates_on_one_nodule_are_one_hit_and_no_false_positive():
    labels = boxes((1, np.s_[1, 0:5, 0:2]), (2, np.s_[1, 0:5, 3:5]))
    case = compare(mask(labels, {1: 0.7, 2: 0.8}), reference(boxes((1, np.s_[1, 0:5, 0:5]))))
    assert [nodule.score for nodule in case.nodules] == [0.8]
    assert case.false_positive_scores == ()


def test_match_with_nothing_on_either_side_has_no_rows_or_columns():
    nothing = boxes()
    assert match(nothing, nothing).iou.shape == (0, 0)
    assert match(boxes((1, np.s_[0, 0, 0])), nothing).reference_of(1) == 0
    assert match(nothing, boxes((1, np.s_[0, 0, 0]))).candidates_of(1) == ()


def test_voxels_are_counted_slice_by_slice():
    case = compare(mask(boxes((1, np.s_[1:3, 0:2, 0:2]))), reference(boxes((1, np.s_[2:4, 0:2, 1:3]))))
    assert case.predicted.tolist() == [0, 4, 4, 0]
    assert case.annotated.tolist() == [0, 0, 4, 4]
    assert case.shared.tolist() == [0, 0, 2, 0]


def test_mask_of_another_volume_is_refused():
    labels = boxes()
    with pytest.raises(ArtefactError, match="need both of one volume"):
        compare(mask(labels), reference(labels, volume_hash="ef" * 32))
    with pytest.raises(ArtefactError, match="need both of one volume"):
        compare(mask(labels), reference(labels, series=2))


def test_candidate_without_a_score_is_refused():
    found = mask(boxes((1, np.s_[1, 0:5, 0:5])))
    object.__setattr__(found, "candidates", ())
    with pytest.raises(ArtefactError, match="label 1 has no score"):
        compare(found, reference(boxes()))
