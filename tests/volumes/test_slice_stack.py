"""Slices of a series that know which they are: packed with neighbours, cut where there is a gap."""

import numpy as np
import pytest

from slicestream.errors import ArtefactError
from slicestream.volumes.artefact import read_artefact, write_artefact
from slicestream.volumes.slices import SliceStack, choose_slices, read_slices, write_slices
from slicestream.volumes.volume import SeriesId

SERIES = SeriesId(patient="0" * 16, series="1" * 16)


def whole(slices=10):
    """Slice k holds k everywhere."""
    hu = np.repeat(np.arange(slices, dtype=np.int16), 16).reshape(slices, 4, 4)
    return SliceStack.of_series(SERIES, hu=hu, nodule=(hu == 3).astype(np.uint8), spacing_mm=(2.0, 1.0, 1.0))


def chosen(*numbers, context=0):
    return choose_slices(whole(), np.array(numbers, np.intp), context=context)


def test_chosen_slices_come_with_their_neighbours_and_know_which_they_are(tmp_path):
    write_slices(tmp_path / "a.slices", [chosen(0, 4, 5, context=1)])
    (stack,) = read_slices(tmp_path / "a.slices")
    assert stack.numbers.tolist() == stack.hu[:, 0, 0].tolist() == [0, 1, 3, 4, 5, 6]
    assert stack.trained.tolist() == [True, False, False, True, True, False]
    assert stack.context == 1
    assert stack.slices_mm.tolist() == [0, 2, 6, 8, 10, 12]
    assert stack.nodule.any(axis=(1, 2)).tolist() == [False, False, True, False, False, False]


def test_neighbours_end_where_the_series_ends_or_what_was_packed_of_it():
    near = chosen(0, 5, 9, context=1)
    shown = near.numbers[near.neighbours(1)].tolist()
    assert [shown[place] for place in np.flatnonzero(near.trained)] == [[0, 0, 1], [4, 5, 6], [8, 9, 9]]
    assert shown[1] == [0, 1, 1]  # slice 2 was not packed
    assert near.neighbours(0).tolist() == [[place] for place in range(7)]


def test_runs_are_the_slices_without_a_gap():
    assert list(chosen(1, 2, 3, 7, 9).runs()) == [slice(0, 3), slice(3, 4), slice(4, 5)]
    assert list(chosen(1, 3, context=1).runs()) == [slice(0, 5)]


def test_a_part_keeps_its_numbers_and_claims_no_neighbours():
    near = chosen(2, 6, context=1)
    alone = near.part(near.trained)
    assert (alone.numbers.tolist(), alone.context) == ([2, 6], 0)
    assert alone.hu[:, 0, 0].tolist() == [2, 6]


def test_more_neighbours_than_the_series_has_are_all_of_it():
    stack = chosen(4, context=50)
    assert stack.numbers.tolist() == list(range(10))
    assert np.flatnonzero(stack.trained).tolist() == [4]


def test_nothing_chosen_is_an_empty_stack():
    empty = chosen(context=2)
    assert empty.hu.shape == (0, 4, 4)
    assert empty.neighbours(1).shape == (0, 3)


@pytest.mark.parametrize("numbers", [(1, 2), (3, 2, 1), (1, 1, 2), (-1, 0, 1)])
def test_slice_numbers_that_cannot_be_are_refused(numbers):
    part = whole(3)
    with pytest.raises(ValueError, match="do not fit 3 images, or do not ascend"):
        SliceStack(
            id=SERIES, hu=part.hu, nodule=part.nodule, spacing_mm=(1, 1, 1), numbers=np.array(numbers),
            trained=part.trained,
        )  # fmt: skip


def test_slices_of_versions_that_did_not_say_their_numbers_are_to_be_made_again(tmp_path):
    write_slices(tmp_path / "a.slices", [chosen(4)])
    artefact = read_artefact(tmp_path / "a.slices", "slices")
    del artefact.header["stacks"][0]["numbers"]
    write_artefact(tmp_path / "b.slices", "slices", artefact.header, artefact.arrays)
    with pytest.raises(ArtefactError, match=r"b\.slices: not usable training slices \('numbers'\)\. Make them again"):
        read_slices(tmp_path / "b.slices")
