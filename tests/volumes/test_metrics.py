import numpy as np
import pytest

from made import mask, reference
from slicestream.errors import ArtefactError
from slicestream.volumes.metrics import compare, match


def boxes(*spans, shape=(4, 20, 20)):
    labels = np.zeros(shape, np.uint16)
    for label, span in spans:
        labels[span] = label
    return labels


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
