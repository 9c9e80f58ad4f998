"""The score that a share of what is rightly found reaches."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slicestream.learning.data import SliceSet
from slicestream.learning.device import choose_device
from slicestream.learning.recipe import Recipe
from slicestream.learning.validation import Found, find
from slicestream.volumes.slices import SliceStack
from slicestream.volumes.volume import SeriesId, Window

RECIPE = Recipe(
    name="test", widths=(2, 2), epochs=1, patch_px=None, batch_size=1, learning_rate=1, weight_decay=0, warmup=0,
    average=0, patience=1, window=Window(low_hu=0, high_hu=1000),
)  # fmt: skip


class _Echo(nn.Module):
    """Says that the probability of nodule is the image, but for what is black."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.logit(image, eps=1e-6)


def slices(*squares: tuple[int, bool]) -> SliceSet:
    """One slice per square: its probability in thousandths, and whether readers drew it."""
    hu = np.zeros((len(squares), 16, 16), np.int16)
    nodule = np.zeros(hu.shape, np.uint8)
    for index, (level, drawn) in enumerate(squares):
        hu[index, 4:8, 4:8] = level
        nodule[index, 4:8, 4:8] = drawn
    series = SeriesId(patient="0" * 16, series="1" * 16)
    return SliceSet.from_stacks([SliceStack.of_series(series, hu=hu, nodule=nodule, spacing_mm=(1.0, 1.0, 1.0))])


def found(given: SliceSet) -> Found:
    return find(_Echo(), given, recipe=RECIPE, device=choose_device("cpu", threads=1), threshold=0.3)


def least(given: SliceSet, share: float) -> float:
    return found(given).score_that_keeps(share)


def test_share_of_the_nodules_found_reaches_the_score() -> None:
    given = slices(*((level, True) for level in (500, 600, 700, 800, 900)))
    assert least(given, 1.0) == pytest.approx(0.5, abs=1e-3)
    assert least(given, 0.75) == pytest.approx(0.6, abs=1e-3)


def test_what_readers_did_not_draw_or_nobody_found_says_nothing() -> None:
    assert least(slices((400, False), (800, True), (200, True)), 1.0) == pytest.approx(0.8, abs=1e-3)
    assert least(slices((900, False), (100, True)), 0.95) == 0.0


def test_what_readers_did_not_draw_is_a_candidate_that_hits_nothing() -> None:
    both = found(slices((400, False), (800, True), (200, True)))
    assert both.scores.tolist() == pytest.approx([0.4, 0.8], abs=1e-3)
    assert both.hits.tolist() == [False, True]


def test_what_hardly_overlaps_is_no_hit() -> None:
    given = slices((800, True), (400, True))
    given.nodule[given.nodule_at[16:] + 256] = 0
    given.nodule[256 : 256 + 16 * 5] = 1  # the rows above, and one of the square's own
    assert least(given, 1.0) == pytest.approx(0.8, abs=1e-3)
