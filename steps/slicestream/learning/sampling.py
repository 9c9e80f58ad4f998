"""Which slices an epoch sees, and in what order. N slice."""

from __future__ import annotations

import torch
from torch import Tensor

from slicestream.learning.data import SliceSet
from slicestream.learning.recipe import Sampling


def epoch_order(slices: SliceSet, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """Return int64 (N,), the slices of one epoch in their order; `Recipe.sampling` says what each way does."""
    shuffled = torch.randperm(len(slices), generator=generator)
    if sampling == "nodules":
        shuffled = _drawn_by_nodule(slices.nodules.cpu(), generator)[shuffled]
    return slices.trained.cpu()[shuffled]


def _drawn_by_nodule(nodules: Tensor, generator: torch.Generator) -> Tensor:
    """Return int64 (N,): systematic sampling, so that what is due n times comes n times, rounded up or down."""
    annotated = nodules > 0
    due = torch.where(annotated, nodules * annotated.sum() / nodules.sum(), 1.0)
    at = torch.arange(len(nodules)) + torch.rand(1, generator=generator, dtype=torch.float64)
    return torch.searchsorted(due.cumsum(0), at).clamp(max=len(nodules) - 1)
