"""The training loop: epochs that depend on (seed, epoch) alone, so that a resumed run is the unbroken one."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from slicestream.errors import OptionError
from slicestream.learning.augment import Pasting, make_batch, make_scan_batch
from slicestream.learning.checkpoint import Checkpoint
from slicestream.learning.data import SliceSet
from slicestream.learning.device import Device
from slicestream.learning.group import from_first, gathered, size, with_shared_statistics
from slicestream.learning.losses import loss_of
from slicestream.learning.networks import UNet, build_unet
from slicestream.learning.recipe import Recipe
from slicestream.learning.reduction import Reducer
from slicestream.learning.sampling import epoch_order
from slicestream.learning.scans import Scans, draw_crops, suspects
from slicestream.learning.validation import Found, Scores, find, measure
from slicestream.volumes.calibration import fit_temperature, tempered

THRESHOLDS = tuple(round(0.2 + 0.05 * step, 2) for step in range(13))


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """What one epoch gave. All but `seconds` and `images_per_second` are the same in every run of one seed."""

    epoch: int
    learning_rate: float
    training_loss: float
    validation_loss: float
    validation_dice: float
    validation_iou: float
    validation_iou_per_slice: float
    seconds: float
    images_per_second: float

    @property
    def quality(self) -> float:
        """What the best epoch is chosen by, as in `Scores.quality`."""
        return (self.validation_iou + self.validation_iou_per_slice) / 2


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What training gave: the best weights, every epoch, scores at the threshold chosen on the validation side.

    `min_score` is what the model asks of a candidate, `temperature` what scores are tempered with, chosen there too
    from the candidates `found`; 0, 1 and None where the recipe asks for neither. `reducer` is the second network,
    whose scores those are where the recipe asks for one.
    """

    network: UNet
    history: list[Epoch]
    best_epoch: int
    scores: Scores
    min_score: float = 0.0
    temperature: float = 1.0
    found: Found | None = None
    reducer: Reducer | None = None


@dataclass(kw_only=True, slots=True)
class _State:
    """All that changes while training. `average` is what is validated and kept."""

    network: UNet
    average: UNet
    optimizer: torch.optim.AdamW
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    best_quality: float = -1.0
    history: list[Epoch] = field(default_factory=list)


def train(
    training: SliceSet,
    validation: SliceSet,
    *,
    recipe: Recipe,
    seed: int,
    device: Device,
    checkpoint: Checkpoint | None,
    scans: Scans | None = None,
    compiled: bool = False,
    on_epoch: Callable[[list[Epoch]], None],
) -> Outcome:
    """Train, or go on where `checkpoint` ends; call `on_epoch` after each epoch. Raises OptionError or OutputError.

    `scans` is what the training side holds of whole scans, None for nothing. Of processes that train together all
    return the same; only the first keeps a checkpoint.
    """
    if size() > recipe.batch_size:
        raise OptionError(
            f"{size()} processes, but recipe {recipe.name} makes batches of {recipe.batch_size} slices; need one each. "
            f"Give --processes, or fewer GPUs and nodes, {recipe.batch_size} at most in all."
        )
    training, validation = training.to(device.torch_device), validation.to(device.torch_device)
    state = _start(recipe, seed, device)
    _resume(state, from_first(checkpoint.load() if checkpoint else None))
    forward: Callable[[Tensor], Tensor] = torch.compile(state.network) if compiled else state.network
    if size() > 1:
        forward = DistributedDataParallel(state.network)
    if state.history:
        on_epoch(state.history)
    while len(state.history) < recipe.epochs and len(state.history) - state.best_epoch < recipe.patience:
        number, begin = len(state.history) + 1, time.perf_counter()
        loss, rate = _epoch(state, forward, (training, scans), recipe=recipe, seed=seed, device=device)
        trained = time.perf_counter()
        (scores,) = measure(state.average, validation, recipe=recipe, device=device, thresholds=(0.5,), flips=False)
        state.history.append(
            Epoch(
                epoch=number,
                learning_rate=rate,
                training_loss=loss,
                validation_loss=scores.loss,
                validation_dice=scores.dice_pooled,
                validation_iou=scores.iou_pooled,
                validation_iou_per_slice=scores.iou_per_slice,
                seconds=time.perf_counter() - begin,
                images_per_second=len(training) / (trained - begin),
            )
        )
        if scores.quality > state.best_quality:
            state.best_quality, state.best_epoch = scores.quality, number
            state.best = {name: tensor.clone() for name, tensor in state.average.state_dict().items()}
        if checkpoint:
            checkpoint.save(_saved(state))
        on_epoch(state.history)
    return _outcome(state, validation, recipe=recipe, device=device)


def _outcome(state: _State, validation: SliceSet, *, recipe: Recipe, device: Device) -> Outcome:
    """Take the best weights; choose the threshold, and by the candidates at it what becomes of their scores."""
    state.average.load_state_dict(state.best)
    tried = measure(state.average, validation, recipe=recipe, device=device, thresholds=THRESHOLDS, flips=True)
    chosen = max(tried, key=lambda score: (round(score.quality, 6), -abs(score.threshold - 0.5)))
    outcome = Outcome(network=state.average, history=state.history, best_epoch=state.best_epoch, scores=chosen)
    if recipe.kept is None and not recipe.temperature:
        return outcome
    found = find(state.average, validation, recipe=recipe, device=device, threshold=chosen.threshold)
    return calibrated(outcome, found, recipe)


def calibrated(outcome: Outcome, found: Found, recipe: Recipe) -> Outcome:
    """Return `outcome` with the temperature and the least score that the recipe asks of candidates like `found`."""
    temperature = fit_temperature(found.scores, found.hits) if recipe.temperature else 1.0
    least = 0.0 if recipe.kept is None else found.score_that_keeps(recipe.kept)
    least = round(float(tempered(np.array(least), temperature)), 4) if least else 0.0
    least = min(least, 0.9999)  # 1 would ask for more than any has
    return replace(outcome, min_score=least, temperature=temperature, found=found)


def _start(recipe: Recipe, seed: int, device: Device) -> _State:
    torch.manual_seed(seed)
    network = build_unet(recipe.widths, channels=2 * recipe.context + 1)
    network = network.to(device.torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = with_shared_statistics(network)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    return _State(network=network, average=average, optimizer=optimizer)


def _epoch(
    state: _State,
    forward: Callable[[Tensor], Tensor],
    shown: tuple[SliceSet, Scans | None],
    *,
    recipe: Recipe,
    seed: int,
    device: Device,
) -> tuple[float, float]:
    """See as many slices as there are, and crops of scans beside; return the mean loss and the last learning rate."""
    slices, scans = shown
    number, batches = len(state.history), math.ceil(len(slices) / recipe.batch_size)
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, number)).generate_state(1)[0]))
    order = epoch_order(slices, recipe.sampling, generator).to(device.torch_device)
    beside = _crops_of_scans(state, slices, scans, recipe=recipe, device=device, generator=generator)
    total = torch.zeros((), device=device.torch_device)
    state.network.train()
    rate = recipe.learning_rate
    parts = [None] * batches if beside is None else beside.split(batches)
    for batch, (chosen, crops) in enumerate(zip(order.tensor_split(batches), parts, strict=True)):
        rate = learning_rate(recipe, number + batch / batches)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        image, target = _batch(slices, chosen, crops, recipe=recipe, generator=generator)
        with device.autocast():
            logits = forward(image.contiguous(memory_format=torch.channels_last))
        images = (len(chosen), 0 if crops is None else len(crops))
        loss = loss_of(recipe, gathered(logits.float(), images), gathered(target, images))
        state.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        _average(state, recipe.average, step=number * batches + batch)
        total += loss.detach() * len(chosen)
    return float(total) / len(slices), rate


def _batch(
    slices: SliceSet, chosen: Tensor, crops: Pasting | None, *, recipe: Recipe, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return this process's images and masks of slices `chosen`, then those of scans."""
    patch = recipe.patch_px or slices.side(recipe.multiple)
    shown = [
        make_batch(
            slices, chosen, patch=patch, window=recipe.window, augmentation=recipe.augmentation, generator=generator
        )
    ]
    if crops is not None:
        shown.append(
            make_scan_batch(
                slices, crops, patch=patch, window=recipe.window, augmentation=recipe.augmentation, generator=generator
            )
        )
    images, masks = zip(*shown, strict=True)
    return torch.cat(images), torch.cat(masks)


def _crops_of_scans(
    state: _State,
    slices: SliceSet,
    scans: Scans | None,
    *,
    recipe: Recipe,
    device: Device,
    generator: torch.Generator,
) -> Pasting | None:
    """Return this epoch's crops of scans; where the network is wrong is searched anew, so nothing need be kept."""
    count = round(recipe.scans.crops * len(slices))
    if scans is None or not count:
        return None
    wrong = torch.zeros((0, 3), dtype=torch.int64)
    if recipe.scans.revisited and state.history:
        wrong = suspects(state.average, slices, scans, recipe=recipe, device=device, generator=generator)
    return draw_crops(scans, wrong, count=count, shares=recipe.scans, generator=generator)


def learning_rate(recipe: Recipe, epochs_done: float) -> float:
    """Return the rate after `epochs_done` (a fraction within an epoch): a linear rise, then half a cosine to 0."""
    share = epochs_done / recipe.epochs
    if share < recipe.warmup:
        return recipe.learning_rate * (0.05 + 0.95 * share / recipe.warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (share - recipe.warmup) / (1 - recipe.warmup)))


@torch.no_grad()
def _average(state: _State, decay: float, *, step: int) -> None:
    """Move the averaged weights and batch-norm statistics towards the present ones, faster at the beginning."""
    decay = min(decay, (1 + step) / (10 + step))
    now, kept = state.network.state_dict(), state.average.state_dict()
    floats = [name for name, tensor in kept.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([kept[name] for name in floats], [now[name] for name in floats], 1 - decay)
    for name in kept.keys() - set(floats):
        kept[name].copy_(now[name])


def _saved(state: _State) -> dict[str, Any]:
    return {
        "network": state.network.state_dict(),
        "average": state.average.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "best": state.best,
        "best_epoch": state.best_epoch,
        "best_quality": state.best_quality,
        "history": [{name: getattr(epoch, name) for name in Epoch.__slots__} for epoch in state.history],
    }


def _resume(state: _State, saved: dict[str, Any] | None) -> None:
    if saved is None:
        return
    state.network.load_state_dict(saved["network"])
    state.average.load_state_dict(saved["average"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.best = {name: tensor.to(state.average.head.weight.device) for name, tensor in saved["best"].items()}
    state.best_epoch, state.best_quality = saved["best_epoch"], saved["best_quality"]
    state.history = [Epoch(**epoch) for epoch in saved["history"]]
