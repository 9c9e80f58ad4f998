"""What training makes small."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def dice_and_bce(logits: Tensor, target: Tensor, *, dice_weight: float, bce_weight: float) -> Tensor:
    """Return the weighted sum of batch Dice loss and mean binary cross-entropy; both tensors BxCxHxW, float32.

    Dice (Milletari et al. 2016, arXiv:1606.04797, with a plain denominator) is taken over the whole batch: a batch
    holds slices without nodule, whose own Dice would be undefined. The 1 on both sides keeps it so if all are empty.
    """
    probability = torch.sigmoid(logits)
    overlap = 2 * (probability * target).sum() + 1
    dice_loss = 1 - overlap / (probability.sum() + target.sum() + 1)
    return dice_weight * dice_loss + bce_weight * functional.binary_cross_entropy_with_logits(logits, target)
