"""Whole scans among the training slices: where to lay crops in them, what nodules to paste, what to look at again.

A scan slice is larger than a crop: it shows a chest, most of it without a nodule. B batch, H row, W column.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from slicestream.learning.augment import Pasting
from slicestream.learning.data import SliceSet
from slicestream.learning.device import Device
from slicestream.learning.group import collected, part
from slicestream.learning.recipe import Recipe, ScanShares
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.lungs import find_lungs
from slicestream.volumes.slices import SliceStack

CLEAR_BELOW_HU = -700.0  # a nodule is pasted where the mean around is lung, no vessel's trunk and no wall
CLEAR_MM = 10.0
TISSUE_ABOVE_HU = -500.0  # a wall, or a vessel's trunk, where the mean is above: no nodule is pasted over it
TISSUE_MM = 6.0
ROOM_MM = 40.0  # looked for around a place, at most
SPARE = 1.3  # room that a nodule is given, of its reach: augmentation may enlarge it
RING_PX = (3, 6)  # around a donor's mask: what must be lung, and is taken for its background
DONOR_MM = (2.5, 25.0)  # diameter of a disc of the same area
SUSPECT = 0.2  # probability from which a pixel without nodule is looked at again
_STEP = 3  # of rows and columns: so many lie from one place to the next
_TRIED = 8  # places drawn for each nodule to paste
_REVISITED = 48  # slices searched for false positives before each epoch


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Pixels of slices: int64 (N, 3), index of the slice, row, column.

    `room_mm` is of those in `clear`: half the side of the square around, float32 (N,), that holds no wall nor trunk.
    """

    lung: Tensor
    clear: Tensor
    room_mm: Tensor

    def __post_init__(self) -> None:
        if self.lung.shape[1:] != (3,) or self.clear.shape != (len(self.room_mm), 3):
            raise ValueError("places are slice, row, column; those in clear lung have a room")


@dataclass(frozen=True, kw_only=True, slots=True)
class Donors:
    """Nodules that may be pasted, one slice each.

    Attributes
    ----------
    index : int64 (N,), the slice
    centre : float32 (N, 2), row and column of the nodule's middle
    around_hu : float32 (N,), mean of the lung around it
    reach_mm : float32 (N,), from the middle to the farthest drawn row or column
    """

    index: Tensor
    centre: Tensor
    around_hu: Tensor
    reach_mm: Tensor

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scans:
    """What the scan slices of a training side offer."""

    slices: Tensor
    places: Places
    donors: Donors

    @property
    def can_paste(self) -> bool:
        """Whether there is a nodule to paste, and a place for it."""
        return len(self.places.clear) > 0 and len(self.donors) > 0


def find_scans(stacks: Sequence[SliceStack], *, patch: int) -> Scans | None:
    """Return what the slices of `stacks` to train on offer, in their order; None where none is a whole scan's.

    A slice counts where each side is at least twice a crop's and a lung is found in its stack.
    """
    found, lung, clear, room = [], [], [], []
    for stack, place in _trained_on(stacks):
        if min(stack.hu.shape[1:]) >= 2 * patch:
            inside = _lungs(stack)
            drawn = np.asarray(stack.nodule.any(axis=(1, 2)))
            for index in np.flatnonzero(inside.any(axis=(1, 2))):
                here = int(place[index])
                found.append(here)
                lung.append(_sampled(inside[index] & (stack.nodule[index] == 0), here))
                if not drawn[index]:
                    at = inside[index] & find_clear(stack, int(index))
                    clear.append(_sampled(at, here))
                    room.append(_room_mm(stack, int(index), inside[index])[at[::_STEP, ::_STEP]])
    if not found:
        return None
    none = np.zeros((0, 3), np.int64)
    places = Places(
        lung=torch.from_numpy(np.concatenate([none, *lung])),
        clear=torch.from_numpy(np.concatenate([none, *clear])),
        room_mm=torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *room])),
    )
    return Scans(slices=torch.tensor(found), places=places, donors=find_donors(stacks))


def find_donors(stacks: Sequence[SliceStack]) -> Donors:
    """Return the slices to train on that hold one nodule alone, with lung all around, of a size that is common."""
    index, centre, around, reach = [], [], [], []
    for stack, place in _trained_on(stacks):
        pixel_mm2 = stack.spacing_mm[1] * stack.spacing_mm[2]
        for number, mask in enumerate(stack.nodule):
            diameter = 2 * (float(mask.astype(bool).sum()) * pixel_mm2 / np.pi) ** 0.5
            if DONOR_MM[0] <= diameter <= DONOR_MM[1]:
                middle, hu = _alone_in_lung(stack.hu[number], mask > 0)
                if middle is not None:
                    index.append(int(place[number]))
                    centre.append(middle)
                    around.append(hu)
                    away = np.abs(np.argwhere(mask) - middle).max(axis=0) * stack.spacing_mm[1:]
                    reach.append(float(away.max()))
    return Donors(
        index=torch.tensor(index, dtype=torch.int64),
        centre=torch.tensor(centre, dtype=torch.float32).reshape(-1, 2),
        around_hu=torch.tensor(around, dtype=torch.float32),
        reach_mm=torch.tensor(reach, dtype=torch.float32),
    )


def _trained_on(stacks: Sequence[SliceStack]) -> Iterator[tuple[SliceStack, NDArray[np.intp]]]:
    """Yield of each stack what is trained on, and the places of these slices among those of all stacks."""
    first = 0
    for stack in stacks:
        yield stack.part(stack.trained), first + np.flatnonzero(stack.trained)
        first += len(stack.hu)


def _alone_in_lung(hu: NDArray[np.int16], mask: NDArray[np.bool_]) -> tuple[tuple[float, float] | None, float]:
    if int(cc3d.connected_components(mask, connectivity=8).max(initial=0)) != 1:
        return None, 0.0
    rows, columns = np.nonzero(mask)
    reach = RING_PX[1]
    top, left = max(0, rows.min() - reach), max(0, columns.min() - reach)
    part = (slice(top, rows.max() + reach + 1), slice(left, columns.max() + reach + 1))
    drawn = torch.from_numpy(mask[part])[None, None].float()
    inner, outer = (functional.max_pool2d(drawn, 2 * n + 1, 1, n)[0, 0].numpy() > 0 for n in RING_PX)
    ring = hu[part][outer & ~inner]
    if ring.size == 0 or np.median(ring) > CLEAR_BELOW_HU or np.mean(ring > -500) > 0.15:
        return None, 0.0
    return (float(rows.mean()), float(columns.mean())), float(np.median(ring))


def _lungs(stack: SliceStack) -> NDArray[np.bool_]:
    """Return the lung mask at the stack's own grid; nothing where no lung is found."""
    lungs = find_lungs(stack.hu, Geometry(shape=stack.hu.shape, spacing_mm=stack.spacing_mm))
    if lungs.inside is None:
        return np.zeros(stack.hu.shape, np.bool_)
    wide = lungs.inside
    for axis, step in enumerate(lungs.steps):
        wide = wide.repeat(step, axis=axis)
    return wide[tuple(slice(n) for n in stack.hu.shape)]


def find_clear(stack: SliceStack, index: int) -> NDArray[np.bool_]:
    """Return where a slice of `stack` shows lung without a wall, a vessel's trunk or a nodule, (row, column)."""
    return _mean_hu(stack, index, CLEAR_MM) < CLEAR_BELOW_HU


def _mean_hu(stack: SliceStack, index: int, side_mm: float) -> NDArray[np.float32]:
    width = 2 * max(1, round(side_mm / 2 / stack.spacing_mm[1])) + 1
    plane = torch.from_numpy(stack.hu[index].astype(np.float32))[None, None]
    mean = functional.avg_pool2d(plane, width, 1, width // 2, count_include_pad=False)
    return np.asarray(mean[0, 0].numpy())


def _room_mm(stack: SliceStack, index: int, inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the room around every `_STEP`th row and column: half of a square's side, `ROOM_MM` at most."""
    taken = (_mean_hu(stack, index, TISSUE_MM) > TISSUE_ABOVE_HU) | ~inside
    near = torch.from_numpy(taken[::_STEP, ::_STEP])[None, None].float()
    step_mm, room = _STEP * min(stack.spacing_mm[1:]), torch.zeros_like(near)
    for _ in range(int(ROOM_MM / step_mm)):
        near = functional.max_pool2d(near, 3, 1, 1)
        room += step_mm * (near == 0)
    return np.asarray(room[0, 0].numpy())


def _sampled(places: NDArray[np.bool_], index: int) -> NDArray[np.int64]:
    rows, columns = np.nonzero(places[::_STEP, ::_STEP])
    return np.stack((np.full(len(rows), index), rows * _STEP, columns * _STEP), axis=1).astype(np.int64)


@torch.no_grad()
def suspects(
    network: nn.Module, slices: SliceSet, scans: Scans, *, recipe: Recipe, device: Device, generator: torch.Generator
) -> Tensor:
    """Return the middles of what `network` (in eval mode) wrongly takes for nodules in some scan slices: (N, 3)."""
    was = network.training
    network.eval()
    some = scans.slices[torch.randperm(len(scans.slices), generator=generator)[:_REVISITED]]
    found: list[tuple[int, int, int]] = []
    lungs = {int(index) for index in some}
    inside = scans.places.lung[[int(index) in lungs for index in scans.places.lung[:, 0].tolist()]]
    for index in some[part(len(some))].tolist():
        image, target = slices.images(torch.tensor([index], device=slices.hu.device), recipe.window, recipe.multiple)
        with device.autocast():
            logits = network(image.contiguous(memory_format=torch.channels_last))
        near = functional.max_pool2d(target, 13, 1, 6)
        wrong = (torch.sigmoid(logits.float()) >= SUSPECT) & (near == 0)
        found += _middles(wrong[0, 0].cpu().numpy(), inside[inside[:, 0] == index], index)
    network.train(was)
    return torch.tensor(collected(found), dtype=torch.int64).reshape(-1, 3)


def _middles(wrong: NDArray[np.bool_], lung: Tensor, index: int) -> list[tuple[int, int, int]]:
    """Return slice, row and column of the middle of each component with at least a sampled lung pixel within 3 px."""
    labels = cc3d.connected_components(wrong, connectivity=8)
    if not labels.any():
        return []
    near = np.zeros(wrong.shape, np.bool_)
    near[lung[:, 1].numpy(), lung[:, 2].numpy()] = True
    near = functional.max_pool2d(torch.from_numpy(near)[None, None].float(), 5, 1, 2)[0, 0].numpy() > 0
    middles = []
    for label in np.unique(labels[near & (labels > 0)]):
        rows, columns = np.nonzero(labels == label)
        if len(rows) >= 3:
            middles.append((index, int(rows.mean()), int(columns.mean())))
    return middles


def draw_crops(scans: Scans, wrong: Tensor, *, count: int, shares: ScanShares, generator: torch.Generator) -> Pasting:
    """Return what `count` crops of scans are laid around: places to paste at, `wrong` ones (N, 3), any in the lungs.

    A nodule that has room at none of the places tried for it is not pasted: its crop shows lung.
    """
    places, donors = scans.places, scans.donors
    pasted = round(count * shares.pasted) if scans.can_paste else 0
    revisited = round(count * shares.revisited) if len(wrong) else 0
    rest = count - pasted

    def some(n: int, of: int) -> Tensor:
        return torch.randint(of, (n,), generator=generator) if n else torch.zeros(0, dtype=torch.int64)

    pick = some(pasted, len(donors))
    at, fits = _with_room(places, SPARE * donors.reach_mm[pick], generator)
    anywhere = places.lung[_evenly(places.lung, rest - revisited, generator)]
    place = torch.cat((places.clear[at], wrong[some(revisited, len(wrong))], anywhere))
    donor = torch.cat((torch.where(fits, donors.index[pick], -1), torch.full((rest,), -1)))
    middle = torch.cat((donors.centre[pick], torch.zeros((rest, 2))))
    around = torch.cat((donors.around_hu[pick], torch.zeros(rest)))
    order = torch.randperm(count, generator=generator)
    return Pasting(place=place[order], donor=donor[order], middle=middle[order], around_hu=around[order])


def _with_room(places: Places, needed_mm: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return for each room `needed_mm` (N,) which place in clear lung to paste at, and whether it is as roomy."""
    if not len(needed_mm):
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
    tried = _evenly(places.clear, len(needed_mm) * _TRIED, generator).reshape(-1, _TRIED)
    roomy = places.room_mm[tried] >= needed_mm[:, None]
    return tried.gather(1, roomy.int().argmax(1, keepdim=True))[:, 0], roomy.any(1)


def _evenly(places: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return which `n` of `places` (N, 3) to take: each slice as often as the next, however much lung it shows."""
    slices, first = np.unique(places[:, 0].numpy(), return_index=True)
    many = np.diff(np.append(first, len(places)))
    pick = torch.randint(len(slices), (n,), generator=generator).numpy()
    draw = torch.rand(n, generator=generator).numpy()
    return torch.from_numpy(first[pick] + (draw * many[pick]).astype(np.int64))
