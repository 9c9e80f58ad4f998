"""The second network: what it learns from, that it tells balls from rods, and how its scores are calibrated."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slicestream.learning.cohort import Side, read_side
from slicestream.learning.device import choose_device
from slicestream.learning.examples import Examples, find_examples
from slicestream.learning.networks import build_unet
from slicestream.learning.patch_set import PatchSampler, PatchSet, View
from slicestream.learning.recipe import Augmentation, Recipe, Reduction
from slicestream.learning.reduction import Reducer, area_under_curve, train_reducer
from slicestream.learning.training import Outcome, calibrated
from slicestream.learning.validation import Found, Scores
from slicestream.volumes.slices import SliceStack, choose_slices, write_slices
from slicestream.volumes.volume import SeriesId, Window

LUNG_HU, TISSUE_HU = -800, 0
DEVICE = choose_device("cpu", threads=1)
RECIPE = Recipe(
    name="test", widths=(2, 2), epochs=1, patch_px=None, batch_size=1, learning_rate=1, weight_decay=0, warmup=0,
    average=0, patience=1, window=Window(low_hu=-1000, high_hu=0), kept=0.9,
    augmentation=Augmentation(zoom=1.1, shift_hu=20, gain=0.05, noise_hu=20),
    reduction=Reduction(widths=(4, 8, 8), batches=40, batch_size=16, learning_rate=1e-2),
)  # fmt: skip


class _Bright(nn.Module):
    """A first stage that takes all tissue for nodules."""

    def forward(self, image: Tensor) -> Tensor:
        return 40 * (image - 0.6)


def stack(patient: int, *, slices: int = 4, rods: bool = True) -> SliceStack:
    """Slices of 96 × 96 pixels of 1 mm, 2 mm apart: balls of 5 mm that readers drew, and rods across the slices."""
    generator = np.random.default_rng(patient)
    hu = generator.normal(LUNG_HU, 20, (slices, 96, 96))
    nodule = np.zeros(hu.shape, np.uint8)
    k, row, column = np.indices(hu.shape)
    for middle in ((20, 20), (20, 60)):
        ball = (2 * (k - slices / 2 + 0.5)) ** 2 + (row - middle[0]) ** 2 + (column - middle[1]) ** 2 <= 5**2
        hu[ball], nodule[ball] = TISSUE_HU, 1
    if rods:
        hu[:, 70:73, 2:45] = TISSUE_HU
        hu[:, 45:92, 84:87] = TISSUE_HU
    series = SeriesId(patient=f"{patient:016x}", series=f"{patient + 1000:016x}")
    return SliceStack.of_series(series, hu=hu.astype(np.int16), nodule=nodule, spacing_mm=(2.0, 1.0, 1.0))


def side(folder: Path, *stacks: SliceStack) -> Side:
    path = folder / f"{stacks[0].id}.slices"
    write_slices(path, stacks)
    return read_side([path], side="training", multiple=2)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Side, Side]:
    folder = tmp_path_factory.mktemp("sides")
    return side(folder, *(stack(n) for n in range(6))), side(folder, *(stack(n) for n in range(6, 10)))


def reduced(sides: tuple[Side, Side]) -> Reducer:
    return train_reducer(_Bright(), sides, recipe=RECIPE, threshold=0.5, seed=1, device=DEVICE)


@pytest.fixture(scope="module")
def reducer(sides: tuple[Side, Side]) -> Reducer:
    return reduced(sides)


def found(given: Side, threshold: float = 0.5) -> Examples:
    return find_examples(_Bright(), given, recipe=RECIPE, device=DEVICE, threshold=threshold, flips=False)


def sampler(given: Side, known: Examples) -> PatchSampler:
    assert RECIPE.reduction is not None
    return PatchSampler(
        patches=PatchSet.from_stacks(given.stacks), known=known, scans=None, shares=RECIPE.reduction,
        augmentation=Augmentation(),
    )  # fmt: skip


def length_mm(drawn: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return how far the tissue of each near patch reaches along rows or columns: 9 to 11 mm for a ball."""
    bright = ((drawn[:, 0, 0] > -400) & (drawn[:, 0, 1] > 0)).any(axis=1)
    return np.maximum(bright.any(axis=1).sum(axis=1), bright.any(axis=2).sum(axis=1))


def test_examples_are_hits_and_what_lies_off_all_nodules(sides: tuple[Side, Side]) -> None:
    examples = found(sides[0])
    assert np.bincount(examples.stack).tolist() == [4] * 6
    assert np.bincount(examples.stack, weights=examples.nodule).tolist() == [2] * 6
    first = examples.place[(examples.stack == 0) & examples.nodule]
    assert sorted(map(tuple, first.round(2).tolist())) == [(1.5, 20.0, 20.0), (1.5, 20.0, 60.0)]
    assert (examples.score > 0.9).all()


def test_missed_nodule_is_learnt_and_what_only_touches_one_is_not(tmp_path: Path) -> None:
    faint = stack(1, rods=False)
    ball = np.flatnonzero(faint.nodule)
    faint.hu.flat[ball] = LUNG_HU  # nothing to be seen
    faint.hu[:, 20, 22:90] = TISSUE_HU  # a line through both balls: less than a tenth of either and it together
    examples = found(side(tmp_path, faint))
    assert examples.nodule.all()
    assert examples.score.tolist() == [0.0, 0.0]


def test_slices_with_a_gap_between_are_looked_at_apart(tmp_path: Path) -> None:
    whole = stack(1, slices=4, rods=False)
    apart = dataclasses.replace(whole, numbers=np.array([0, 1, 7, 8]))
    assert len(found(side(tmp_path, whole))) == 2
    assert len(found(side(tmp_path, apart))) == 4


def test_neighbours_that_were_packed_are_seen_though_none_is_trained_on(tmp_path: Path) -> None:
    given = side(tmp_path, choose_slices(stack(1, slices=8), np.array([3, 4]), context=2))
    assert len(given.slices) == 2
    examples = found(given)
    assert examples.place[examples.nodule, 0].tolist() == pytest.approx([2.5, 2.5])  # between slices 3 and 4
    assert PatchSet.from_stacks(given.stacks).reaches_mm.tolist() == [6.0]  # half of six slices, 2 mm apart


def test_balls_are_told_from_rods_of_other_patients(reducer: Reducer) -> None:
    assert reducer.found.hits.tolist().count(True) == 8
    assert len(reducer.found.scores) == 16
    assert reducer.auc_first_stage < 0.9
    assert reducer.auc > 0.95
    assert reducer.reach_mm == 4.0  # four slices, 2 mm apart


def test_one_seed_gives_one_network(sides: tuple[Side, Side], reducer: Reducer) -> None:
    again = reduced(sides)
    for name, tensor in reducer.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name
    assert np.array_equal(again.found.scores, reducer.found.scores)


def test_first_stage_that_is_nowhere_wrong_leaves_other_tissue_to_learn_from(sides: tuple[Side, Side]) -> None:
    known = found(sides[0])
    right = Examples(
        stack=known.stack[known.nodule], place=known.place[known.nodule], nodule=known.nodule[known.nodule],
        score=known.score[known.nodule],
    )  # fmt: skip
    drawn, nodule = sampler(sides[0], right).draw(20, np.random.default_rng(0))
    assert (length_mm(drawn[nodule == 0]) > 8).all()
    assert length_mm(drawn[nodule == 0]).mean() > 14


def test_tissue_is_what_is_bright_and_far_from_what_readers_drew(sides: tuple[Side, Side]) -> None:
    patches = PatchSet.from_stacks(sides[0].stacks)
    rod, lung, ball, beside = ((1.0, row, column) for row, column in ((71, 20), (50, 50), (20, 20), (20, 29)))
    sides[0].stacks[0].hu[1, 20, 29] = TISSUE_HU  # 4 mm from the ball
    tissue = [patches.is_tissue(0, np.array(place)) for place in (rod, lung, ball, beside)]
    sides[0].stacks[0].hu[1, 20, 29] = LUNG_HU
    assert tissue == [True, False, False, False]


def test_patches_are_seen_with_as_few_slices_as_nodules_come_with(sides: tuple[Side, Side]) -> None:
    patches = PatchSet.from_stacks((*sides[0].stacks[:1], stack(9, slices=30)))
    wide = patches.cut(1, np.array([15.0, 48.0, 48.0]), View(reach_mm=np.inf, shift_mm=np.zeros(3)))
    thin = patches.cut(1, np.array([15.0, 48.0, 48.0]), View(reach_mm=2.0, shift_mm=np.zeros(3)))
    assert wide[0, 1].all()
    assert 0.3 < thin[0, 1].mean() < 0.9
    assert set(patches.reaches_mm) == {4.0, 30.0}


def test_every_second_patch_is_of_a_nodule(sides: tuple[Side, Side]) -> None:
    drawn, nodule = sampler(sides[0], found(sides[0])).draw(20, np.random.default_rng(0))
    assert nodule.tolist() == [0, 1] * 10
    assert (length_mm(drawn[nodule == 0]) > 8).all()
    assert length_mm(drawn[nodule == 0]).mean() > 14
    assert (length_mm(drawn[nodule == 1]) <= 11).all()


def test_area_under_the_curve_counts_pairs_in_order() -> None:
    nodule = np.array([True, True, False, False])
    assert area_under_curve(np.array([0.9, 0.8, 0.2, 0.1]), nodule) == 1.0
    assert area_under_curve(np.array([0.9, 0.1, 0.5, 0.5]), nodule) == 0.5
    assert area_under_curve(np.array([0.5, 0.5, 0.5, 0.5]), nodule) == 0.5


def test_least_score_of_candidates_is_under_what_any_may_have() -> None:
    scores = Scores(threshold=0.5, loss=0.0, iou_pooled=0.0, dice_pooled=0.0, iou_per_slice=0.0)
    outcome = Outcome(network=build_unet((2, 2)), history=[], best_epoch=1, scores=scores)
    for sure, least in ((0.75, 0.75), (1.0, 0.9999)):
        found = Found(scores=np.full(4, sure), hits=np.ones(4, np.bool_))
        assert calibrated(outcome, found, RECIPE).min_score == least
