"""Whole scans in training: where crops lie, what is pasted, what is looked at again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from disc_slices import disc_stack
from slicestream.learning.augment import Pasting, make_scan_batch
from slicestream.learning.checkpoint import Checkpoint
from slicestream.learning.cohort import read_side
from slicestream.learning.data import SliceSet
from slicestream.learning.device import choose_device
from slicestream.learning.recipe import Augmentation, Recipe, ScanShares
from slicestream.learning.scans import Scans, draw_crops, find_donors, find_scans, suspects
from slicestream.learning.training import Epoch, train
from slicestream.volumes.slices import SliceStack, write_slices
from slicestream.volumes.volume import SeriesId, Window

SHAPE = (160, 160)
DISC = disc_stack(1, slices=6)


def chest(*, vessel: bool = True) -> SliceStack:
    """Two slices of 160 × 160 pixels of 2 mm: body of 40 HU, two lungs of -850 HU, in the left one a bright vessel."""
    hu = np.full((2, *SHAPE), -1000, np.int16)
    row, column = np.indices(SHAPE)
    hu[:, ((row - 80) / 60) ** 2 + ((column - 80) / 75) ** 2 < 1] = 40
    for middle in (48, 112):
        hu[:, ((row - 80) / 40) ** 2 + ((column - middle) / 24) ** 2 < 1] = -850
    if vessel:
        hu[:, 78:83, 46:51] = 60
    series = SeriesId(patient="f" * 16, series="e" * 16)
    return SliceStack.of_series(series, hu=hu, nodule=np.zeros(hu.shape, np.uint8), spacing_mm=(5.0, 2.0, 2.0))


STACKS = [DISC, chest()]


def scans() -> Scans:
    found = find_scans(STACKS, patch=64)
    assert found is not None
    return found


def test_small_slices_are_no_scans() -> None:
    assert find_scans([DISC], patch=32) is None
    assert scans().slices.tolist() == [6, 7]


def test_crops_lie_in_lungs_and_pastes_in_clear_lung() -> None:
    hu = chest().hu[0]
    lung, clear = scans().places.lung, scans().places.clear
    assert set(lung[:, 0].tolist()) == {6, 7}
    assert len(clear) < len(lung)
    assert (hu[clear[:, 1], clear[:, 2]] == -850).mean() > 0.97
    away = np.hypot(clear[:, 1] - 80, clear[:, 2] - 48)
    assert away.min() > 4  # not on the vessel
    body_edge = np.abs(lung[:, 2].numpy() - 80)
    assert body_edge.max() < 64  # not in the air around the patient


def test_donors_are_single_nodules_with_lung_all_around() -> None:
    assert find_donors([DISC]).index.tolist() == [0, 1, 2, 3, 4, 5]
    assert find_donors([DISC]).around_hu.numpy() == pytest.approx(-800, abs=15)
    walled = DISC.hu.copy()
    walled[:, :, 16:] = 40
    on_wall = SliceStack.of_series(DISC.id, hu=walled, nodule=DISC.nodule, spacing_mm=DISC.spacing_mm)
    assert len(find_donors([on_wall])) < 6
    double = DISC.nodule | DISC.nodule[:, ::-1, ::-1]
    two = SliceStack.of_series(DISC.id, hu=DISC.hu, nodule=double, spacing_mm=DISC.spacing_mm)
    apart = [i for i in range(6) if not (DISC.nodule[i] & DISC.nodule[i, ::-1, ::-1]).any()]
    assert not set(apart) & set(find_donors([two]).index.tolist())


def pasting(place: tuple[int, int, int], *, donor: int) -> Pasting:
    donors = scans().donors
    return Pasting(
        place=torch.tensor([place]),
        donor=torch.tensor([donor]),
        middle=donors.centre[[max(donor, 0)]],
        around_hu=donors.around_hu[[max(donor, 0)]],
    )


def pasted(donor: int, *, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    image, mask = make_scan_batch(
        SliceSet.from_stacks(STACKS),
        pasting((6, 80, 112), donor=donor),
        patch=64,
        window=Window(),
        augmentation=Augmentation(),
        generator=torch.Generator().manual_seed(seed),
    )
    return image[0, 0].numpy(), mask[0, 0].numpy()


def test_a_pasted_nodule_keeps_its_contrast_and_takes_the_scale_of_the_scan() -> None:
    (plain, nothing), (image, mask) = pasted(-1), pasted(2)
    assert nothing.sum() == 0
    # its pixels were 0.7 mm, the scan's are 2 mm
    assert mask.sum() == pytest.approx(DISC.nodule[2].sum() * (0.7 / 2) ** 2, rel=0.3)
    hu = image * 1600 - 1300
    assert hu[mask > 0].max() == pytest.approx(-50, abs=60)  # 800 HU above lung, as at its origin
    far = np.ones_like(mask, dtype=bool)
    rows, columns = np.nonzero(mask)
    far[rows.min() - 6 : rows.max() + 7, columns.min() - 6 : columns.max() + 7] = False
    np.testing.assert_array_equal(image[far], plain[far])


def test_a_pasted_nodule_lies_anywhere_in_its_crop_but_at_the_edge() -> None:
    middles = np.array([[n.mean() for n in np.nonzero(pasted(2, seed=seed)[1])] for seed in range(40)])
    assert middles.min() > 14
    assert middles.max() < 50
    assert middles.std(axis=0).min() > 6


def test_each_epoch_has_the_shares_that_were_asked_for() -> None:
    wrong = torch.tensor([[6, 80, 48], [7, 80, 48]])
    shares = ScanShares(crops=1.0, pasted=0.4, revisited=0.2)
    generator = torch.Generator().manual_seed(0)
    crops = draw_crops(scans(), wrong, count=100, shares=shares, generator=generator)
    assert int((crops.donor >= 0).sum()) == 40
    revisited = (crops.place[:, None] == wrong).all(-1).any(-1)
    assert 20 <= int(revisited.sum()) <= 24
    assert not (revisited & (crops.donor >= 0)).any()
    assert sum(len(part.place) for part in crops.split(7)) == 100
    none = draw_crops(scans(), wrong[:0], count=100, shares=shares, generator=generator)
    assert len(none.place) == 100


@pytest.mark.parametrize("reach_mm", [10.0, 15.0])
def test_a_nodule_is_pasted_where_no_wall_and_no_trunk_is_within_its_reach(reach_mm: float) -> None:
    crops = drawn_with_reach(reach_mm)
    place = crops.place[crops.donor >= 0]
    assert 10 < len(place) <= 40
    half = int(reach_mm / 2)  # pixels of 2 mm
    for index, row, column in place.tolist():
        around = chest().hu[index - 6, row - half : row + half + 1, column - half : column + half + 1]
        assert around.max() == -850


def test_a_nodule_that_has_room_nowhere_is_not_pasted() -> None:
    crops = drawn_with_reach(60.0)
    assert (crops.donor == -1).all()
    assert len(crops.place) == 100


def drawn_with_reach(reach_mm: float) -> Pasting:
    found = scans()
    donors = replace(found.donors, reach_mm=torch.full((6,), reach_mm))
    shares = ScanShares(crops=1.0, pasted=0.4)
    generator = torch.Generator().manual_seed(0)
    none = torch.zeros((0, 3), dtype=torch.int64)
    return draw_crops(replace(found, donors=donors), none, count=100, shares=shares, generator=generator)


def test_the_reach_of_a_donor_is_that_of_its_mask() -> None:
    donors = find_donors([DISC])
    half = [np.ptp(np.argwhere(mask), axis=0) / 2 * (0.7, 0.8) for mask in DISC.nodule]
    assert donors.reach_mm.numpy() == pytest.approx(np.max(half, axis=1), abs=0.8)


class _Bright(nn.Module):
    """Takes for nodule what is brighter than -300 HU."""

    def forward(self, image: Tensor) -> Tensor:
        return 100 * (image - 0.625)


def test_what_a_network_wrongly_finds_in_lungs_is_revisited_and_a_nodule_is_not() -> None:
    recipe = Recipe(
        name="test", widths=(2, 2), patch_px=64, epochs=1, batch_size=1, learning_rate=1, weight_decay=0, warmup=0,
        average=0, patience=1,
    )  # fmt: skip
    drawn = chest()
    drawn.nodule[1, 78:83, 46:51] = 1
    stacks = [DISC, drawn]
    found = find_scans(stacks, patch=64)
    assert found is not None
    wrong = suspects(
        _Bright().eval(), SliceSet.from_stacks(stacks), found, recipe=recipe, device=choose_device("cpu", threads=1),
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    near = (wrong[:, 1:] - torch.tensor([80, 48])).abs().amax(1) <= 2
    assert wrong[near][:, 0].tolist() == [6]


def test_a_side_is_searched_for_scans_on_demand(tmp_path) -> None:
    path = tmp_path / "training-000.slices"
    write_slices(path, STACKS)
    assert read_side([path], side="training", multiple=8).scans is None
    side = read_side([path], side="training", multiple=8, scan_patch=64)
    assert side.scans is not None
    assert len(side.scans.slices) == 2


def test_shares_that_add_up_to_more_than_one_are_refused() -> None:
    with pytest.raises(ValueError, match="together 1 at most"):
        ScanShares(crops=1, pasted=0.6, revisited=0.5)


class _StopError(Exception):
    """What a kill is here."""


def _trained(folder: Path, *, stop_after: int = 0) -> tuple[list[float], dict[str, Tensor]]:
    recipe = Recipe(
        name="test", widths=(4, 8), patch_px=64, epochs=3, batch_size=4, learning_rate=0.01, weight_decay=0, warmup=0.1,
        average=0.9, patience=3, scans=ScanShares(crops=1.0, pasted=0.3, revisited=0.4),
    )  # fmt: skip

    def watch(history: list[Epoch]) -> None:
        if len(history) == stop_after:
            raise _StopError

    folder.mkdir(exist_ok=True)
    outcome = train(
        SliceSet.from_stacks(STACKS), SliceSet.from_stacks([DISC]), recipe=recipe, seed=1, scans=scans(),
        device=choose_device("cpu", threads=1), checkpoint=Checkpoint(folder), on_epoch=watch,
    )  # fmt: skip
    return [epoch.training_loss for epoch in outcome.history], outcome.network.state_dict()


def test_training_with_scans_that_is_stopped_and_goes_on_is_the_unbroken_one(tmp_path: Path) -> None:
    losses, weights = _trained(tmp_path / "unbroken")
    with pytest.raises(_StopError):
        _trained(tmp_path / "broken", stop_after=2)
    again, resumed = _trained(tmp_path / "broken")
    assert again == losses
    assert all(torch.equal(resumed[name], weights[name]) for name in weights)
