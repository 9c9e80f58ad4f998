"""Measuring a network on whole slices. B batch, H row, W column, T threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slicestream.learning.data import SliceSet
from slicestream.learning.device import Device
from slicestream.learning.group import collected, part
from slicestream.learning.losses import loss_of
from slicestream.learning.recipe import Recipe
from slicestream.volumes.candidates import LEVELS
from slicestream.volumes.metrics import HIT_IOU

_BATCH_PIXELS = 16 * 128 * 128
_FLIPS: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Of the nodule class on whole slices, at one threshold.

    Attributes
    ----------
    loss : mean over batches, weighted by slices
    iou_pooled, dice_pooled : over the pixels of all slices together
    iou_per_slice : mean over the slices that have a reference
    """

    threshold: float
    loss: float
    iou_pooled: float
    dice_pooled: float
    iou_per_slice: float

    @property
    def quality(self) -> float:
        """What epochs and thresholds are chosen by: large and small nodules both count."""
        return (self.iou_pooled + self.iou_per_slice) / 2


@torch.no_grad()
def measure(
    network: nn.Module, slices: SliceSet, *, recipe: Recipe, device: Device, thresholds: Sequence[float], flips: bool
) -> list[Scores]:
    """Return one score per threshold of `network` (in eval mode), averaged over four flips on demand."""
    measured: list[tuple[Tensor, float]] = []
    limits = torch.tensor(thresholds, device=device.torch_device)
    batches = list(slices.whole(_BATCH_PIXELS))
    for chosen in batches[part(len(batches))]:
        image, target = slices.images(chosen, recipe.window, recipe.multiple)
        logits = _logits(network, image, device, _FLIPS if flips else _FLIPS[:1])
        loss = loss_of(recipe, logits, target)
        counts = _counts(torch.sigmoid(logits), target > 0, limits).cpu()
        measured.append((counts, float(loss) * len(chosen)))
    measured = collected(measured)
    losses = sum(loss for _, loss in measured)
    overlap, union, reference = torch.cat([counts for counts, _ in measured], dim=1).double()  # each (slice, T)
    marked = reference[:, 0] > 0
    pooled = overlap.sum(0) / union.sum(0).clamp(min=1)
    per_slice = (overlap[marked] / union[marked]).mean(0) if bool(marked.any()) else torch.zeros_like(pooled)
    return [
        Scores(
            threshold=threshold,
            loss=losses / len(slices),
            iou_pooled=float(pooled[t]),
            dice_pooled=float(2 * pooled[t] / (1 + pooled[t])),
            iou_per_slice=float(per_slice[t]),
        )
        for t, threshold in enumerate(thresholds)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Candidates of a side: scores float64 (N,), and which of them hit a nodule."""

    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]

    def score_that_keeps(self, share: float) -> float:
        """Return the score that `share` of the hits reach; 0 where there is none."""
        return float(np.quantile(self.scores[self.hits], 1 - share)) if self.hits.any() else 0.0


@torch.no_grad()
def find(network: nn.Module, slices: SliceSet, *, recipe: Recipe, device: Device, threshold: float) -> Found:
    """Return the candidates of all slices, four flips averaged.

    As candidates are scored and hit in volumes, but slice by slice, where the ends of a nodule stand alone with their
    lower scores: the score that keeps a share of them is less than the same share of nodules in 3D would ask.
    """
    found: list[tuple[float, bool]] = []
    batches = list(slices.whole(_BATCH_PIXELS))
    for chosen in batches[part(len(batches))]:
        image, target = slices.images(chosen, recipe.window, recipe.multiple)
        probability = torch.sigmoid(_logits(network, image, device, _FLIPS))
        for seen, drawn in zip(probability[:, 0].cpu().numpy(), target[:, 0].cpu().numpy() > 0, strict=True):
            found += _scored(seen, drawn, threshold)
    found = collected(found)
    return Found(
        scores=np.array([score for score, _ in found], np.float64), hits=np.array([hit for _, hit in found], np.bool_)
    )


def _scored(seen: NDArray[np.float32], drawn: NDArray[np.bool_], threshold: float) -> list[tuple[float, bool]]:
    """Return the mean probability of each component (row, column), and whether it hits a nodule of its slice."""
    components = cc3d.connected_components(seen >= threshold, connectivity=8)
    nodules = cc3d.connected_components(drawn, connectivity=8)
    scored = []
    for label in np.unique(components[components > 0]):
        component = components == label
        nodule = np.isin(nodules, np.unique(nodules[component & drawn]))
        hit = 0 < np.count_nonzero(component & nodule) >= HIT_IOU * np.count_nonzero(component | nodule)
        scored.append((float(seen[component].mean()), bool(hit)))
    return scored


@torch.no_grad()
def probability_of(
    network: nn.Module, slices: SliceSet, chosen: Tensor, *, recipe: Recipe, device: Device, flips: bool
) -> NDArray[np.uint16]:
    """Return what `network` says of slices `chosen` of one size (slice, row, column), in steps of 1/65535."""
    rows, columns = int(slices.rows[chosen[0]]), int(slices.columns[chosen[0]])
    parts = []
    for some in torch.split(chosen, max(1, _BATCH_PIXELS // (rows * columns))):
        image, _ = slices.images(some, recipe.window, recipe.multiple)
        seen = torch.sigmoid(_logits(network, image, device, _FLIPS if flips else _FLIPS[:1]))
        inside = seen[:, 0, :rows, :columns].cpu().numpy()
        parts.append(np.rint(inside * np.float32(LEVELS)).astype(np.uint16))
    return np.concatenate(parts)


def _logits(network: nn.Module, image: Tensor, device: Device, flips: Sequence[tuple[int, ...]]) -> Tensor:
    """Return logits of the mean probability over `flips`, float32."""
    image = image.contiguous(memory_format=torch.channels_last)
    total = torch.zeros_like(image[:, :1])
    for axes in flips:
        with device.autocast():
            logits = network(torch.flip(image, axes) if axes else image)
        if len(flips) == 1:
            return logits.float()  # type: ignore[no-any-return]
        total += torch.flip(torch.sigmoid(logits.float()), axes)
    return torch.logit(total / len(flips), eps=1e-7)


def _counts(probability: Tensor, target: Tensor, limits: Tensor) -> Tensor:
    """Return (3, B, T): pixels of overlap, of union, of the reference."""
    found = probability[..., None] >= limits
    there = target[..., None].expand_as(found)
    sums = [(found & there).sum((1, 2, 3)), (found | there).sum((1, 2, 3)), there.sum((1, 2, 3))]
    return torch.stack(sums)
