"""Patches of candidates to learn from: turned, shifted and scaled, shown with as few slices as nodules come with.

S scale, K kind (HU, known or not), D plane, H row, W column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from slicestream.learning.examples import Examples
from slicestream.learning.recipe import Augmentation, Reduction
from slicestream.learning.scans import SPARE, Scans
from slicestream.volumes.patches import Slab
from slicestream.volumes.slices import SliceStack

SHIFT_MM = (1.0, 3.0, 3.0)  # up to this along slice, row, column: a candidate's middle is not the nodule's
TISSUE_HU = -500  # vessels, walls: what a candidate may be taken for
_OFF_PX = 6
_TRIES = 200
_RIM = ((3, 5, 5), (1, 3, 3))  # voxels at each scale: a pasted nodule takes so much around it along


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """How a place is looked at: slices further than `reach_mm` are hidden; things look `zoom` times as large."""

    reach_mm: float
    shift_mm: NDArray[np.float64]
    zoom: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchSet:
    """The stacks of a side, to cut patches from.

    Attributes
    ----------
    images, masks : of each stack
    first : int64 (stack,), the number of each stack's first slice among the side's
    reaches_mm : half of what each run of neighbours with a nodule shows along the slices
    """

    images: tuple[Slab, ...]
    masks: tuple[Slab, ...]
    first: NDArray[np.int64]
    reaches_mm: NDArray[np.float64]

    @classmethod
    def from_stacks(cls, stacks: Sequence[SliceStack]) -> Self:
        """Take stacks in their order."""

        def slab(stack: SliceStack, values: NDArray[Any]) -> Slab:
            return Slab(values=values, slices_mm=stack.slices_mm, spacing_mm=stack.spacing_mm)

        return cls(
            images=tuple(slab(stack, stack.hu) for stack in stacks),
            masks=tuple(slab(stack, stack.nodule) for stack in stacks),
            first=np.cumsum([0, *(len(stack.hu) for stack in stacks[:-1])]),
            reaches_mm=np.array([reach for stack in stacks for reach in _reaches_mm(stack)]),
        )

    def locate(self, pixel: Sequence[float]) -> tuple[int, NDArray[np.float64]]:
        """Return a pixel's stack and index there; given are its slice among the side's, row and column."""
        stack = int(np.searchsorted(self.first, pixel[0], side="right")) - 1
        return stack, np.array([pixel[0] - self.first[stack], pixel[1], pixel[2]], np.float64)

    def cut(self, stack: int, place: NDArray[np.float64], view: View) -> NDArray[np.float32]:
        """Return (S, K, D, H, W) around a fractional index of a stack."""
        return _cut(self.images[stack], place, view)

    def cut_mask(self, stack: int, place: NDArray[np.float64], view: View) -> NDArray[np.float32]:
        """Return the share of each voxel that is nodule, (S, D, H, W)."""
        return _cut(self.masks[stack], place, view)[:, 0]

    def is_tissue(self, stack: int, place: NDArray[np.float64]) -> bool:
        """Return whether a voxel is no air, and no nodule is drawn on its slice within some pixels."""
        k, row, column = (int(n) for n in place)
        near = tuple(slice(max(0, n - _OFF_PX), n + _OFF_PX + 1) for n in (row, column))
        return bool(
            self.images[stack].values[k, row, column] > TISSUE_HU and not self.masks[stack].values[k][near].any()
        )

    def view(self, numbers: np.random.Generator, zoom: float) -> View:
        """Return a view by chance, of as many mm of slices as some nodule comes with."""
        return View(
            reach_mm=float(numbers.choice(self.reaches_mm)),
            shift_mm=numbers.uniform(-1, 1, 3) * SHIFT_MM,
            zoom=float(np.exp(numbers.uniform(-1, 1) * np.log(zoom))),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchSampler:
    """Draws what is learnt from: candidates of `patches`, and of `scans` more, where there are some."""

    patches: PatchSet
    known: Examples
    scans: Scans | None
    shares: Reduction
    augmentation: Augmentation

    def draw(self, count: int, numbers: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return patches (B, S, K, D, H, W) in HU, every second of a nodule, and which are: 1 or 0 (B,)."""
        drawn = [self._one(bool(number % 2), numbers) for number in range(count)]
        return np.stack(drawn), (np.arange(count) % 2).astype(np.float32)

    def _one(self, nodule: bool, numbers: np.random.Generator) -> NDArray[np.float32]:
        view = self.patches.view(numbers, self.augmentation.zoom)
        chance, scans = numbers.random(), self.scans
        if nodule and scans is not None and scans.can_paste and chance < self.shares.pasted:
            patch = _pasted(self.patches, scans, view, numbers)
        elif not nodule and (chance < self.shares.tissue or self.known.nodule.all()):
            patch = self.patches.cut(*self._tissue(numbers), view)
        else:
            example = numbers.choice(np.flatnonzero(self.known.nodule == nodule))
            patch = self.patches.cut(int(self.known.stack[example]), self.known.place[example], view)
        return _jittered(_turned(patch, numbers), self.augmentation, numbers)

    def _tissue(self, numbers: np.random.Generator) -> tuple[int, NDArray[np.float64]]:
        """Return a place of tissue off all nodules: every second time in a scan's lungs, where there is one."""
        in_scan = self.scans is not None and numbers.random() < 0.5
        for _ in range(_TRIES):
            if in_scan and self.scans is not None:
                stack, place = self.patches.locate(_one_of(self.scans.places.lung, numbers))
            else:
                stack = int(numbers.integers(len(self.patches.images)))
                place = numbers.integers(self.patches.images[stack].values.shape).astype(np.float64)
            if self.patches.is_tissue(stack, place):
                break
        return stack, place


def _reaches_mm(stack: SliceStack) -> list[float]:
    """Return half of what each run of neighbours with a nodule shows along the slices."""
    runs = [run for run in stack.runs() if stack.nodule[run].any()]
    return [(run.stop - run.start) * stack.spacing_mm[0] / 2 for run in runs]


def _one_of(places: Tensor, numbers: np.random.Generator) -> list[float]:
    return [float(n) for n in places[numbers.integers(len(places))]]


def _pasted(patches: PatchSet, scans: Scans, view: View, numbers: np.random.Generator) -> NDArray[np.float32]:
    """Return a patch of clear lung of a scan with another patient's nodule in it, faded in as `blended` does.

    A nodule that has room nowhere stays where it is.
    """
    donors, donor = scans.donors, int(numbers.integers(len(scans.donors)))
    stack, place = patches.locate([float(donors.index[donor]), *(float(n) for n in donors.centre[donor])])
    nodule, mask = patches.cut(stack, place, view), patches.cut_mask(stack, place, view)
    roomy = scans.places.clear[scans.places.room_mm >= SPARE * donors.reach_mm[donor]]
    if not len(roomy):
        return nodule
    patch = patches.cut(*patches.locate(_one_of(roomy, numbers)), view)
    patch[:, 1] *= nodule[:, 1]
    fade = np.stack([_feathered(share, rim) for share, rim in zip(mask, _RIM, strict=True)]) * patch[:, 1]
    lung = float((fade[0] * patch[0, 0]).sum() / max(fade[0].sum(), 1e-3))
    angle = fade * (np.pi / 2)
    over_lung = nodule[:, 0] - float(donors.around_hu[donor])
    patch[:, 0] += (np.cos(angle) - 1) * (patch[:, 0] - lung) + np.sin(angle) * over_lung
    return patch


def _feathered(share: NDArray[np.float32], rim: tuple[int, int, int]) -> NDArray[np.float32]:
    """Return 1 in the nodule and around it, falling to 0 over as much again."""
    around = tuple(n // 2 for n in rim)
    wide = functional.max_pool3d((torch.from_numpy(share) > 0.3).float()[None], rim, 1, around)
    return functional.avg_pool3d(wide, rim, 1, around)[0].numpy()


def _turned(patch: NDArray[np.float32], numbers: np.random.Generator) -> NDArray[np.float32]:
    quarters, flipped, upside = (int(n) for n in numbers.integers((4, 2, 2)))
    patch = np.rot90(patch, quarters, axes=(-2, -1))
    patch = patch[..., ::-1] if flipped else patch
    return patch[..., ::-1, :, :] if upside else patch


def _jittered(
    patch: NDArray[np.float32], augmentation: Augmentation, numbers: np.random.Generator
) -> NDArray[np.float32]:
    """Return the patch with brightness, contrast about -500 HU and noise changed, as crops are for the first stage."""
    gain, shift = numbers.uniform(-1, 1, 2) * (augmentation.gain, augmentation.shift_hu)
    noise = numbers.standard_normal(patch[:, 0].shape, np.float32) * augmentation.noise_hu * numbers.random()
    changed = (patch[:, 0] + 500) * (1 + gain) - 500 + shift + noise
    return np.stack((changed, patch[:, 1]), axis=1).astype(np.float32)


def _cut(slab: Slab, place: NDArray[np.float64], view: View) -> NDArray[np.float32]:
    return slab.cut_scales(slab.place_mm(place) + view.shift_mm, reach_mm=view.reach_mm, zoom=view.zoom)
