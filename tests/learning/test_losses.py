"""Losses against figures computed by hand, and where they must not break."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from slicestream.learning.losses import dice_and_bce, loss_of, tversky, unified_focal
from slicestream.learning.recipe import Loss, find_recipe

LOSSES: tuple[Loss, ...] = ("dice_bce", "tversky", "unified_focal")
# four pixels: two of a nodule, of which one is found, and two of background, of which one is taken for nodule
TARGET = torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
CHANCES = (0.9, 0.2, 0.6, 0.1)
LOGITS = torch.logit(torch.tensor(CHANCES)).reshape(1, 1, 2, 2)


def loss(name: Loss, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return loss_of(replace(find_recipe("laptop"), loss=name), logits, target)


def test_perfect_logits_lose_nothing_and_wrong_ones_much() -> None:
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2] = 1
    logits = (target * 2 - 1) * 30
    assert dice_and_bce(logits, target, dice_weight=1, bce_weight=1) < 1e-6
    assert dice_and_bce(-logits, target, dice_weight=1, bce_weight=0) == pytest.approx(1 - 1 / 17, abs=1e-4)
    assert dice_and_bce(-logits, target, dice_weight=0, bce_weight=1) == pytest.approx(30)
    assert tversky(logits, target) < 1e-6
    assert tversky(-logits, target) == pytest.approx(1 - 1 / 9, abs=1e-4)
    assert unified_focal(logits, target) < 1e-3
    assert unified_focal(-logits, target) > 5


def test_tversky_loss_weighs_what_is_missed_more_than_what_is_false() -> None:
    # found 0.9 + 0.2, missed 0.1 + 0.8, false 0.6 + 0.1; 1 above and below
    assert tversky(LOGITS, TARGET) == pytest.approx(1 - 2.1 / (2.1 + 0.7 * 0.9 + 0.3 * 0.7), abs=1e-5)
    assert tversky(LOGITS, TARGET, missed=0.5) == pytest.approx(1 - 4.2 / (2 + 2.0 + 1.8), abs=1e-5)  # Dice


def test_unified_focal_loss_is_that_of_the_paper() -> None:
    found, missed, false = 1.1, 0.9, 0.7
    nodule = 1 - (found + 1) / (found + 0.6 * missed + 0.4 * false + 1)
    background = 1 - (1.3 + 1) / (1.3 + 0.6 * false + 0.4 * missed + 1)
    focal_tversky = (math.sqrt(nodule) + background) / 2
    focal = -(0.6 * (math.log(0.9) + math.log(0.2)) + 0.4 * (0.6**0.5 * math.log(0.4) + 0.1**0.5 * math.log(0.9))) / 4
    assert unified_focal(LOGITS, TARGET) == pytest.approx((focal_tversky + focal) / 2, abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_batches_without_nodules_have_a_defined_loss(name: Loss) -> None:
    empty = torch.zeros(2, 1, 4, 4)
    assert loss(name, empty - 30, empty) < 1e-3


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("logit", [-200.0, -4.0, 0.0, 200.0])
def test_slopes_are_finite_and_lead_to_the_target(name: Loss, logit: float) -> None:
    logits = torch.full((1, 1, 2, 2), logit, requires_grad=True)
    loss(name, logits, TARGET).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    if abs(logit) < 100:
        assert (logits.grad[TARGET > 0] < 0).all()
        assert (logits.grad[TARGET == 0] > 0).all()


@pytest.mark.parametrize("wrong", [{"loss": "focal"}, {"sampling": "patients"}, {"context": -1}])
def test_what_no_recipe_can_ask_for_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="unknown"):
        replace(find_recipe("laptop"), **wrong)
