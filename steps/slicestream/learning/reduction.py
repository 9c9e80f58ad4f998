"""False positives reduced: a small 3D network looks again at each candidate of the first stage. docs/decisions/0013.

B batch, N example, S scale, K kind (HU, known or not), D plane, H row, W column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from slicestream.learning.cohort import Side
from slicestream.learning.device import Device
from slicestream.learning.examples import Examples, find_examples
from slicestream.learning.networks import TwoPath
from slicestream.learning.patch_set import PatchSampler, PatchSet, View
from slicestream.learning.recipe import Recipe
from slicestream.learning.scans import SUSPECT
from slicestream.learning.validation import Found
from slicestream.volumes.patches import windowed
from slicestream.volumes.volume import Window

REACH_QUANTILE = 0.75  # of what stacks with a nodule show to either side
_BATCH = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Reducer:
    """A trained network, and what its use must know.

    Attributes
    ----------
    reach_mm : slices further from a candidate are not shown, since training has hardly any
    found : the first stage's candidates on the validation side, with this network's scores
    auc_first_stage, auc : how well the scores of either network tell these apart, area under the ROC curve
    """

    network: TwoPath
    reach_mm: float
    found: Found
    auc_first_stage: float
    auc: float


def train_reducer(
    first_stage: nn.Module, sides: tuple[Side, Side], *, recipe: Recipe, threshold: float, seed: int, device: Device
) -> Reducer:
    """Train on the training side's candidates and on other tissue; score the validation side's candidates.

    `threshold` is the first stage's. On the training side, which it knows by heart, less makes a candidate.
    """
    assert recipe.reduction is not None
    training, validation = sides
    known = find_examples(
        first_stage, training, recipe=recipe, device=device, threshold=min(threshold, SUSPECT), flips=False
    )
    patches = PatchSet.from_stacks(training.stacks)
    sampler = PatchSampler(
        patches=patches,
        known=known,
        scans=training.scans,
        shares=recipe.reduction,
        augmentation=recipe.augmentation,
    )
    network = _trained(sampler, window=recipe.window, seed=seed, device=device)
    reach_mm = round(float(np.quantile(patches.reaches_mm, REACH_QUANTILE)), 3)
    new = find_examples(first_stage, validation, recipe=recipe, device=device, threshold=threshold, flips=True)
    scores = score(network, validation, new, window=recipe.window, reach_mm=reach_mm, device=device)
    found = Found(scores=scores[new.found], hits=new.nodule[new.found])
    return Reducer(
        network=network,
        reach_mm=reach_mm,
        found=found,
        auc_first_stage=area_under_curve(new.score[new.found], found.hits),
        auc=area_under_curve(found.scores, found.hits),
    )


def _trained(sampler: PatchSampler, *, window: Window, seed: int, device: Device) -> TwoPath:
    """Train with as many nodules as others in each batch, over one rise and fall of the rate."""
    settings = sampler.shares
    torch.manual_seed(seed)
    numbers = np.random.default_rng(seed)
    network = TwoPath(settings.widths).to(device.torch_device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, settings.batches)
    for _ in range(settings.batches):
        drawn, nodule = sampler.draw(settings.batch_size, numbers)
        image = torch.from_numpy(windowed(drawn, window)).to(device.torch_device)
        with device.autocast():
            logits = network(image)
        target = torch.from_numpy(nodule).to(device.torch_device)
        loss = functional.binary_cross_entropy_with_logits(logits.float(), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


@torch.no_grad()
def score(
    network: TwoPath, side: Side, examples: Examples, *, window: Window, reach_mm: float, device: Device
) -> NDArray[np.float64]:
    """Return the score of each example (N,), seen as it is at inference."""
    patches, still = PatchSet.from_stacks(side.stacks), View(reach_mm=reach_mm, shift_mm=np.zeros(3))
    scores = [np.zeros(0)]
    for first in range(0, len(examples), _BATCH):
        some = slice(first, first + _BATCH)
        cut = [patches.cut(int(s), p, still) for s, p in zip(examples.stack[some], examples.place[some], strict=True)]
        image = torch.from_numpy(windowed(np.stack(cut), window)).to(device.torch_device)
        scores.append(torch.sigmoid(network(image).double()).cpu().numpy())
    return np.concatenate(scores)


def area_under_curve(scores: NDArray[np.float64], nodule: NDArray[np.bool_]) -> float:
    """Return the chance that a nodule scores over another candidate, ties half; 0.5 unless both kinds are there."""
    if nodule.all() or not nodule.any():
        return 0.5
    apart = scores[nodule][:, None] - scores[~nodule]
    return round(float(((apart > 0) + 0.5 * (apart == 0)).mean()), 4)
