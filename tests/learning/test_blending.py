"""Nodules laid over other lung: what they keep and what they take over, on discs and noise of known size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from slicestream.learning.blending import FADE_PX, RIM_PX, blended

SIDE, RADIUS = 64, 8
AXIS = torch.arange(SIDE) - SIDE / 2
AWAY = torch.hypot(AXIS[:, None], AXIS)
DISC = (AWAY <= RADIUS).float()


def lungs(level_hu: float, noise_hu: float, *, seed: int, count: int = 200) -> Tensor:
    noise = torch.randn((count, SIDE, SIDE), generator=torch.Generator().manual_seed(seed))
    return level_hu + noise_hu * noise


def pasted(onto: Tensor, noise_hu: float = 30.0) -> Tensor:
    """Return `onto` with discs of 0 HU of a lung of -800 HU in it."""
    there = lungs(-800, noise_hu, seed=1, count=len(onto)) + 800 * DISC
    return blended(onto.clone(), there, DISC.expand_as(onto), torch.full((len(onto),), -800.0))


def test_a_nodule_keeps_its_contrast_to_the_lung() -> None:
    found = pasted(lungs(-900, 30, seed=2))
    assert float(found[:, AWAY < RADIUS - 2].mean()) == pytest.approx(-100, abs=3)


def test_nothing_changes_beyond_the_rim() -> None:
    onto = lungs(-900, 30, seed=2)
    far = AWAY > RADIUS + (RIM_PX + FADE_PX) * 2**0.5 + 1
    assert torch.equal(pasted(onto)[:, far], onto[:, far])


def test_two_lungs_that_fade_into_each_other_keep_their_noise_and_level() -> None:
    found = pasted(lungs(-800, 30, seed=2))
    for inner in range(RADIUS + 2, RADIUS + 9):
        ring = found[:, (inner <= AWAY) & (inner + 1 > AWAY)]
        assert float(ring.std()) == pytest.approx(30, rel=0.05), inner  # half of each, simply added, would have 21
        assert float(ring.mean()) == pytest.approx(-800, abs=3), inner


@pytest.mark.parametrize(("of_the_lung", "factor"), [(30, 1), (40, 4 / 3), (25, 5 / 6), (90, 1.4), (5, 0.7)])
def test_a_nodule_takes_the_noise_of_the_lung_within_limits(of_the_lung: float, factor: float) -> None:
    core = pasted(lungs(-800, of_the_lung, seed=2))[:, AWAY < RADIUS - 2]
    # 1/9 of the variance is the mean of nine pixels, which is kept
    assert float(core.std()) == pytest.approx(30 * (1 / 9 + factor**2 * 8 / 9) ** 0.5, rel=0.04)


def test_lung_without_any_level_of_its_own_leaves_the_nodule_as_it_was() -> None:
    found = pasted(torch.full((3, SIDE, SIDE), 40.0))  # a wall: no lung to compare with
    assert float(found[:, AWAY < RADIUS - 2].mean()) == pytest.approx(0, abs=10)
    assert torch.isfinite(found).all()
