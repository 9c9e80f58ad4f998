"""What training makes small: each takes logits and a target of 0 and 1, both BxCxHxW float32, over the whole batch.

A batch holds slices without nodule, whose own Dice would be undefined. The 1 on both sides keeps it so where all are
empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:  # the benchmarks use these losses where only torch is installed
    from slicestream.learning.recipe import Recipe


def loss_of(recipe: Recipe, logits: Tensor, target: Tensor) -> Tensor:
    """Return the loss that the recipe asks for."""
    if recipe.loss == "tversky":
        return tversky(logits, target)
    if recipe.loss == "unified_focal":
        return unified_focal(logits, target)
    return dice_and_bce(logits, target, dice_weight=recipe.dice_weight, bce_weight=recipe.bce_weight)


def dice_and_bce(logits: Tensor, target: Tensor, *, dice_weight: float, bce_weight: float) -> Tensor:
    """Return the weighted sum of batch Dice loss and mean binary cross-entropy.

    Dice: Milletari et al. 2016, arXiv:1606.04797, with a plain denominator.
    """
    probability = torch.sigmoid(logits)
    overlap = 2 * (probability * target).sum() + 1
    dice_loss = 1 - overlap / (probability.sum() + target.sum() + 1)
    return dice_weight * dice_loss + bce_weight * functional.binary_cross_entropy_with_logits(logits, target)


def tversky(logits: Tensor, target: Tensor, *, missed: float = 0.7) -> Tensor:
    """Return 1 - the Tversky index of the nodule: missed pixels weigh `missed`, false ones the rest.

    Salehi et al. 2017, arXiv:1706.05721, with their best weights.
    """
    return 1 - _tversky_index(torch.sigmoid(logits), target, missed)


def unified_focal(logits: Tensor, target: Tensor, *, missed: float = 0.6, focus: float = 0.5) -> Tensor:
    """Return the asymmetric unified focal loss: the mean of a focal cross-entropy and a focal Tversky loss.

    Easy background weighs less in the one (to the power of `focus`), a nodule that is nearly right more in the other.
    Yeung et al. 2022, doi:10.1016/j.compmedimag.2021.102026, with their weights; as in their code both classes' Tversky
    losses are averaged.
    """
    probability = torch.sigmoid(logits)
    nodule = missed * target * functional.softplus(-logits)
    easy = probability.clamp(min=1e-7) ** focus  # a root has no slope at 0
    background = (1 - missed) * (1 - target) * easy * functional.softplus(logits)
    of_nodule = (1 - _tversky_index(probability, target, missed)).clamp(min=1e-6)
    of_background = 1 - _tversky_index(1 - probability, 1 - target, missed)
    return 0.5 * (nodule + background).mean() + 0.25 * (of_nodule ** (1 - focus) + of_background)


def _tversky_index(probability: Tensor, target: Tensor, missed: float) -> Tensor:
    found = (probability * target).sum()
    lost, false = target.sum() - found, probability.sum() - found
    return (found + 1) / (found + missed * lost + (1 - missed) * false + 1)
