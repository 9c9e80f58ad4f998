"""Neighbouring slices as channels: packed, moved, pasted and exported with the slice that they stand beside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from slicestream.errors import ArtefactError
from slicestream.inference.model import load_model
from slicestream.inference.predict import predict
from slicestream.inference.region import whole as all_of
from slicestream.learning.augment import Pasting, make_batch, make_scan_batch
from slicestream.learning.cohort import read_side
from slicestream.learning.data import SliceSet
from slicestream.learning.model import ModelFacts, write_model
from slicestream.learning.networks import build_unet
from slicestream.learning.recipe import Augmentation
from slicestream.learning.scans import find_donors
from slicestream.volumes.slices import SliceStack, choose_slices, read_slices, write_slices
from slicestream.volumes.volume import SeriesId, Window

WINDOW = Window(low_hu=-1000, high_hu=0)


def series(*, slices: int = 8, slice_mm: float = 2.0, number: int = 1, nodule: tuple[int, ...] = ()) -> SliceStack:
    """A whole series: slice k is lung of -900 + 10 k HU, with a disc of -100 HU in the slices of a nodule."""
    hu = np.repeat(-900 + 10 * np.arange(slices, dtype=np.int16), 32 * 32).reshape(slices, 32, 32)
    drawn = np.zeros(hu.shape, np.uint8)
    row, column = np.indices((32, 32))
    for k in nodule:
        drawn[k] = (row - 16) ** 2 + (column - 16) ** 2 <= 16
    hu[drawn > 0] = -100
    identity = SeriesId(patient=f"{number:016x}", series=f"{number:016x}")
    return SliceStack.of_series(identity, hu=hu, nodule=drawn, spacing_mm=(slice_mm, 1.0, 1.0))


def packed(whole: SliceStack, *chosen: int, context: int = 1) -> SliceStack:
    return choose_slices(whole, np.array(chosen), context=context)


def levels(image_BCHW: torch.Tensor) -> list[list[int]]:
    """Which slice of `series` each channel shows, by its corner."""
    hu = image_BCHW[:, :, 0, 0] * 1000 - 1000
    return ((hu + 900) / 10).round().int().tolist()


def test_neighbours_are_those_of_the_series_and_its_ends_repeat(tmp_path: Path) -> None:
    write_slices(tmp_path / "a.slices", [packed(series(), 0, 4, 5, 7, context=2)])
    (stack,) = read_slices(tmp_path / "a.slices")
    slices = SliceSet.from_stacks([stack], context=2)
    image, _ = slices.images(slices.trained, WINDOW, 1)
    assert levels(image) == [[0, 0, 0, 1, 2], [2, 3, 4, 5, 6], [3, 4, 5, 6, 7], [5, 6, 7, 7, 7]]


def test_what_is_only_a_neighbour_is_neither_trained_on_nor_counted(tmp_path: Path) -> None:
    stacks = [packed(series(nodule=(3, 4)), 3, 4), packed(series(number=2), 6)]
    slices = SliceSet.from_stacks(stacks, context=1)
    assert len(slices) == 3
    assert torch.cat(list(slices.whole(10_000))).tolist() == [1, 2, 5]  # of 2, 3, 4, 5 of the one, 5, 6, 7 of the other
    write_slices(tmp_path / "training-000.slices", stacks)
    side = read_side([tmp_path / "training-000.slices"], side="training", multiple=8, context=1)
    assert side.summary() == {"patients": 2, "slices": 3, "annotated_slices": 2}


def test_a_network_of_single_slices_sees_the_same_whether_neighbours_were_packed_or_not() -> None:
    whole = series(nodule=(3, 4, 5))
    stacks = [[packed(whole, 3, 5, context=context)] for context in (1, 0)]
    with_them, without = (SliceSet.from_stacks(stack) for stack in stacks)
    for one, other in zip(*(s.images(s.trained, WINDOW, 1) for s in (with_them, without)), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(with_them.nodules, without.nodules)
    donors = [find_donors(stack) for stack in stacks]
    assert with_them.trained.tolist() == donors[0].index.tolist() == [1, 3]
    assert without.trained.tolist() == donors[1].index.tolist() == [0, 1]
    assert torch.equal(donors[0].reach_mm, donors[1].reach_mm)


def test_a_recipe_that_sees_more_neighbours_than_were_packed_is_refused(tmp_path: Path) -> None:
    write_slices(tmp_path / "training-000.slices", [packed(series(nodule=(3,)), 3)])
    with pytest.raises(ArtefactError, match=r"1 neighbours .* sees 2\. Run `slicestream preprocess --context 2`"):
        read_side([tmp_path / "training-000.slices"], side="training", multiple=8, context=2)


def test_all_channels_turn_and_move_alike() -> None:
    whole = series(nodule=(2, 3, 4))
    slices = SliceSet.from_stacks([packed(whole, 3)], context=1)
    turned = Augmentation(rotate=True, flip=True, zoom=1.3, shift_hu=20, gain=0.1, overhang_px=8)
    image, mask = make_batch(
        slices, slices.trained.repeat(8), patch=32, window=WINDOW, augmentation=turned,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert image.shape == (8, 3, 32, 32)
    bright = image > 0.6
    assert bright.float().mean() > 0.02
    for channel in range(3):  # 10 HU from slice to slice move an edge by a pixel here and there
        assert (bright[:, channel] == (mask[:, 0] > 0)).float().mean() > 0.99


def pasted(donor: SliceStack, donor_slice: int, *, scan_mm: float) -> NDArray[np.bool_]:
    """Return in which channels a nodule pasted into the middle of a plain scan is seen."""
    scan = packed(series(number=2, slice_mm=scan_mm), 4)
    slices = SliceSet.from_stacks([donor, scan], context=1)
    place = Pasting(
        place=torch.tensor([[int(slices.trained[-1]), 16, 16]]), donor=slices.trained[[donor_slice]],
        middle=torch.tensor([[16.0, 16.0]]), around_hu=torch.tensor([-870.0]),
    )  # fmt: skip
    image, mask = make_scan_batch(
        slices, place, patch=64, window=WINDOW, augmentation=Augmentation(), generator=torch.Generator().manual_seed(0)
    )
    assert 30 < mask.sum() < 70
    return np.asarray((image[0] > 0.7).flatten(1).any(dim=1))


def test_a_pasted_nodule_is_in_the_neighbours_where_the_donors_series_has_it() -> None:
    donor = packed(series(nodule=(3, 4)), 3, 4)
    assert pasted(donor, 0, scan_mm=2.0).tolist() == [False, True, True]
    assert pasted(donor, 1, scan_mm=2.0).tolist() == [True, True, False]
    assert pasted(donor, 0, scan_mm=4.0).tolist() == [False, True, False]  # two slices of the donor away
    assert pasted(donor, 0, scan_mm=0.5).tolist() == [True, True, True]  # thinner than the donor's


def test_where_a_donors_series_ends_its_nodule_goes_on_as_far_as_a_ball_would() -> None:
    alone = packed(series(slices=1, nodule=(0,)), 0)  # radius 4 mm
    assert pasted(alone, 0, scan_mm=3.0).tolist() == [True, True, True]
    assert pasted(alone, 0, scan_mm=5.0).tolist() == [False, True, False]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = build_unet((2, 4, 4, 4, 4), channels=3)
    torch.nn.init.normal_(network.head.weight)
    out = tmp_path_factory.mktemp("model")
    facts = ModelFacts(window=Window(), spacing_mm=(1.0, 1.0), threshold=0.5)
    write_model(out, network.eval(), facts=facts, card={})
    return out / "model.onnx"


def test_infer_gives_the_exported_network_the_neighbours_that_training_gave_it(model_path: Path) -> None:
    model = load_model(model_path, threads=2, at_once=2)
    assert (model.context, model.architecture) == (1, "unet-2x5-3")
    hu = np.random.default_rng(0).integers(-1000, 300, (5, 32, 48)).astype(np.int16)
    whole = SliceStack.of_series(series().id, hu=hu, nodule=np.zeros(hu.shape, np.uint8), spacing_mm=(1.0, 1.0, 1.0))
    image, _ = SliceSet.from_stacks([packed(whole, *range(5))], context=1).images(torch.arange(5), Window(), 16)
    wanted = np.concatenate(list(model.probabilities(image.numpy()[:, None])))[:, 0] * 65535
    assert np.abs(predict(model, hu, all_of(hu.shape)) - wanted).max() <= 1
