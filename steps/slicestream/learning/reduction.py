"""False positives reduced: a small 3D network looks again at each candidate of the first stage. docs/decisions/0013.

B batch, N example, S scale, K kind (HU, known or not), D plane, H row, W column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from slicestream.learning.cohort import Side
from slicestream.learning.device import Device
from slicestream.learning.examples import Examples, find_examples
from slicestream.learning.networks import TwoPath
from slicestream.learning.patch_set import PatchSampler, PatchSet, View
from slicestream.learning.recipe import Recipe
from slicestream.learning.scans import SUSPECT
from slicestream.volumes.patches import windowed
from slicestream.volumes.volume import Window

REACH_QUANTILE = 0.75  # of what stacks with a nodule show to either side
TEMPERATURES = np.geomspace(1.0, 8.0, 43)  # never surer than it is: the validation side's candidates are few
_BATCH = 64


@dataclass(kw_only=True, slots=True)
class Reducer:
    """A trained network, and what its use must know.

    Attributes
    ----------
    temperature : divides the logits, 1 or more; fitted on the validation side
    reach_mm : slices further from a candidate are not shown, since training has hardly any
    min_score : what the model asks of a candidate, chosen on the validation side
    validation : how well candidates of the validation side were told apart
    """

    network: TwoPath
    temperature: float
    reach_mm: float
    min_score: float
    validation: dict[str, float]

    def scorer(self) -> nn.Module:
        """Return what takes windowed patches (N, S, K, D, H, W) to scores (N,)."""
        return _Scorer(self.network, self.temperature)


class _Scorer(nn.Module):
    def __init__(self, network: TwoPath, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, patches_NSKDHW: Tensor) -> Tensor:
        return torch.sigmoid(self.network(patches_NSKDHW) / self.temperature)


def train_reducer(
    first_stage: nn.Module, sides: tuple[Side, Side], *, recipe: Recipe, threshold: float, seed: int, device: Device
) -> Reducer:
    """Train on the training side's candidates and on other tissue; calibrate on the validation side's candidates.

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
    logits = score(network, validation, new, window=recipe.window, reach_mm=reach_mm, device=device)
    return _calibrated(network, new, logits, reach_mm=reach_mm, kept=recipe.kept)


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
    """Return the logit of each example (N,), seen as it is at inference."""
    patches, still = PatchSet.from_stacks(side.stacks), View(reach_mm=reach_mm, shift_mm=np.zeros(3))
    logits = [np.zeros(0)]
    for first in range(0, len(examples), _BATCH):
        some = slice(first, first + _BATCH)
        cut = [patches.cut(int(s), p, still) for s, p in zip(examples.stack[some], examples.place[some], strict=True)]
        image = torch.from_numpy(windowed(np.stack(cut), window)).to(device.torch_device)
        logits.append(network(image).double().cpu().numpy())
    return np.concatenate(logits)


def _calibrated(
    network: TwoPath, new: Examples, logits: NDArray[np.float64], *, reach_mm: float, kept: float | None
) -> Reducer:
    """Choose the temperature and the least score by what the first stage gives on the validation side."""
    found = new.score > 0
    temperature = fit_temperature(logits[found], new.nodule[found])
    scores = sigmoid(logits / temperature)
    hits, misses = scores[found & new.nodule], scores[found & ~new.nodule]
    least = float(np.quantile(hits, 1 - kept)) if kept is not None and len(hits) else 0.0
    before, after = (area_under_curve(s[found], new.nodule[found]) for s in (new.score, scores))
    return Reducer(
        network=network,
        temperature=temperature,
        reach_mm=reach_mm,
        min_score=min(round(least, 4), 0.9999),  # a least score of 1 would ask for more than any has
        validation={"hits": len(hits), "misses": len(misses), "auc_first_stage": before, "auc": after},
    )


def fit_temperature(logits: NDArray[np.float64], nodule: NDArray[np.bool_]) -> float:
    """Return the temperature of least cross-entropy (Guo et al. 2017, arXiv:1706.04599); 1 without both kinds."""
    if nodule.all() or not nodule.any():
        return 1.0
    scaled = np.where(nodule, -logits, logits)[:, None] / TEMPERATURES
    return round(float(TEMPERATURES[np.logaddexp(0, scaled).mean(axis=0).argmin()]), 4)


def area_under_curve(scores: NDArray[np.float64], nodule: NDArray[np.bool_]) -> float:
    """Return the chance that a nodule scores over another candidate, ties half; 0.5 unless both kinds are there."""
    if nodule.all() or not nodule.any():
        return 0.5
    apart = scores[nodule][:, None] - scores[~nodule]
    return round(float(((apart > 0) + 0.5 * (apart == 0)).mean()), 4)


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities."""
    return np.asarray(1 / (1 + np.exp(-logits)))
