"""How often an epoch shows a slice: each once, or each nodule as often as the next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from disc_slices import disc_stack
from slicestream.learning.checkpoint import Checkpoint
from slicestream.learning.data import SliceSet
from slicestream.learning.device import choose_device
from slicestream.learning.recipe import Loss, Recipe, Sampling, find_recipe
from slicestream.learning.sampling import epoch_order
from slicestream.learning.training import train
from slicestream.volumes.slices import SliceStack, choose_slices
from slicestream.volumes.volume import SeriesId

LONG, SHORT, BESIDE = 12, 2, 3


def stack() -> SliceStack:
    """20 slices: a nodule in the first 12, a second beside it in 3 of these, one in 15 and 16, nothing elsewhere."""
    nodule = np.zeros((20, 32, 32), np.uint8)
    nodule[:LONG, 4:12, 4:12] = 1
    nodule[2 : 2 + BESIDE, 20:24, 20:24] = 1
    nodule[15 : 15 + SHORT, 24:27, 4:7] = 1
    hu = np.where(nodule > 0, 0, -800).astype(np.int16)
    series = SeriesId(patient="0" * 16, series="1" * 16)
    return SliceStack.of_series(series, hu=hu, nodule=nodule, spacing_mm=(1, 1, 1))


SLICES = SliceSet.from_stacks([stack()])


def counts(sampling: Sampling, seeds: int = 60) -> np.ndarray:
    """Return how often each slice comes in an epoch, on average."""
    total = np.zeros(20)
    for seed in range(seeds):
        order = epoch_order(SLICES, sampling, torch.Generator().manual_seed(seed))
        assert len(order) == 20
        total += np.bincount(order.numpy(), minlength=20)
    return total / seeds


def test_by_slices_each_comes_once() -> None:
    assert counts("slices", seeds=3).tolist() == [1.0] * 20


def test_by_nodules_each_is_seen_as_often_as_the_next_and_empty_slices_as_before() -> None:
    seen = counts("nodules")
    assert seen[[12, 13, 14, 17, 18, 19]] == pytest.approx(1.0)
    # 14 slices with a nodule, 3 nodules: each is due 14 / 3 times, in whichever of its slices
    due = 14 / 3
    assert seen[15 : 15 + SHORT].sum() == pytest.approx(due, rel=0.05)
    assert seen[:15].sum() - 3 == pytest.approx(2 * due, rel=0.05)
    with_both = seen[2 : 2 + BESIDE].sum()
    assert with_both == pytest.approx(due + BESIDE / LONG * due, rel=0.1)


def test_no_nodule_is_left_to_chance() -> None:
    for seed in range(20):
        order = epoch_order(SLICES, "nodules", torch.Generator().manual_seed(seed)).numpy()
        assert 4 <= np.isin(order, range(15, 15 + SHORT)).sum() <= 5


def test_one_seed_gives_one_order_and_another_another() -> None:
    first, again, other = (epoch_order(SLICES, "nodules", torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("loss", "sampling", "context"),
    [("dice_bce", "nodules", 1), ("tversky", "slices", 0), ("unified_focal", "slices", 2)],
)
def test_each_way_of_training_finds_discs(tmp_path: Path, loss: Loss, sampling: Sampling, context: int) -> None:
    recipe: Recipe = replace(
        find_recipe("phantom"), widths=(4, 8), patch_px=32, epochs=8, learning_rate=0.02, average=0.5,
        loss=loss, sampling=sampling, context=context, temperature=True,
    )  # fmt: skip
    sides = [
        SliceSet.from_stacks(
            [choose_slices(disc_stack(patient), np.arange(6), context=context) for patient in patients],
            context=context,
        )
        for patients in ((1, 2, 3, 4), (5, 6))
    ]
    outcome = train(
        sides[0], sides[1], recipe=recipe, seed=0, device=choose_device("cpu", threads=1),
        checkpoint=Checkpoint(tmp_path), on_epoch=lambda _: None,
    )  # fmt: skip
    assert outcome.scores.iou_pooled > 0.6
    assert outcome.found is not None
    assert outcome.found.hits.sum() >= 10
