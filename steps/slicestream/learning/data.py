"""Training slices in memory: decoded once, kept as int16, never copied to float as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import cc3d
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from slicestream.volumes.slices import SliceStack
from slicestream.volumes.volume import AIR_HU, Window


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceSet:
    """Slices of any sizes, one after the other: those to train on, and those that are only seen beside them.

    Slices are told by their places here.

    Attributes
    ----------
    hu, nodule : int16 and uint8, flat: all pixels of the first slice row by row, then of the second, …
    first, rows, columns : int64 per slice: place of its first pixel, its size
    nodule_at : int64, pixels of nodules within their slice (row * columns + column), slice by slice
    nodule_first, nodule_count : int64 per slice: its part of `nodule_at`
    pixel_mm, slice_mm : float32 per slice: distance of two rows, of two slices of its series
    around : int64 (slice, C): which slices the channels of its image show, itself in the middle
    trained : int64 (N,): the slices to train on
    nodules : float64 (N,): the share of nodules of each of these; a nodule counts 1 over all of them that show it
    """

    hu: Tensor
    nodule: Tensor
    first: Tensor
    rows: Tensor
    columns: Tensor
    nodule_at: Tensor
    nodule_first: Tensor
    nodule_count: Tensor
    pixel_mm: Tensor
    slice_mm: Tensor
    around: Tensor
    trained: Tensor
    nodules: Tensor

    @classmethod
    def from_stacks(cls, stacks: Sequence[SliceStack], *, context: int = 0) -> Self:
        """Take the slices of `stacks` in their order; images show `context` neighbours, which the stacks must have."""
        of = [stack for stack in stacks for _ in range(len(stack.hu))]
        rows, columns = (np.array([stack.hu.shape[axis] for stack in of], np.int64) for axis in (1, 2))
        hu = np.concatenate([np.zeros(0, np.int16), *(stack.hu.reshape(-1) for stack in stacks)])
        drawn = np.concatenate([np.zeros(0, np.bool_), *((stack.nodule > 0).reshape(-1) for stack in stacks)])
        nodule = drawn.view(np.uint8)
        pixels = rows * columns
        first = np.cumsum(pixels) - pixels
        marked = np.flatnonzero(nodule)
        owner = np.searchsorted(first, marked, side="right") - 1
        count = np.bincount(owner, minlength=len(rows)) if len(marked) else np.zeros(len(rows), np.int64)
        return cls(
            hu=torch.from_numpy(hu),
            nodule=torch.from_numpy(nodule),
            first=torch.from_numpy(first),
            rows=torch.from_numpy(rows),
            columns=torch.from_numpy(columns),
            nodule_at=torch.from_numpy(marked - first[owner] if len(marked) else np.zeros(1, np.int64)),
            nodule_first=torch.from_numpy(np.cumsum(count) - count),
            nodule_count=torch.from_numpy(count.astype(np.int64)),
            pixel_mm=torch.tensor([stack.spacing_mm[1] for stack in of], dtype=torch.float32),
            slice_mm=torch.tensor([stack.spacing_mm[0] for stack in of], dtype=torch.float32),
            around=torch.from_numpy(_around(stacks, context)),
            trained=torch.from_numpy(np.flatnonzero([trained for stack in stacks for trained in stack.trained])),
            nodules=torch.from_numpy(np.concatenate([np.zeros(0), *(_share_of_nodules(stack) for stack in stacks)])),
        )

    def views(self, stacks: Sequence[SliceStack]) -> Iterator[SliceStack]:
        """Yield `stacks`, which this set was made of, with its pixels for theirs: so they are in memory once."""
        begin = 0
        for stack in stacks:
            here = slice(begin, begin := begin + stack.hu.size)
            hu, nodule = (flat[here].numpy().reshape(stack.hu.shape) for flat in (self.hu, self.nodule))
            yield replace(stack, hu=hu, nodule=nodule)

    def __len__(self) -> int:
        """How many slices to train on."""
        return len(self.trained)

    @property
    def context(self) -> int:
        """How many neighbours on each side an image shows."""
        return self.around.shape[1] // 2

    def to(self, device: torch.device) -> Self:
        """Return the set with all tensors on `device`."""
        return type(self)(**{name: getattr(self, name).to(device) for name in self.__slots__})

    def nodule_pixel(self, chosen: Tensor, draw: Tensor) -> Tensor:
        """Return float (B, 2): row and column of one nodule pixel per slice `chosen`, picked by `draw` in [0, 1)."""
        count = self.nodule_count[chosen]
        pick = torch.minimum((draw * count).long(), (count - 1).clamp(min=0))
        at = self.nodule_at[(self.nodule_first[chosen] + pick).clamp(max=len(self.nodule_at) - 1)]
        columns = self.columns[chosen]
        return torch.stack((torch.div(at, columns, rounding_mode="floor"), at % columns), dim=1).float() + 0.5

    def whole(self, batch_pixels: int) -> Iterator[Tensor]:
        """Yield slices to train on (B,) of one size, at most `batch_pixels` pixels a batch, in order of size."""
        row, column = self.rows[self.trained], self.columns[self.trained]
        for rows, columns in sorted({(int(r), int(c)) for r, c in zip(row, column, strict=True)}):
            same = self.trained[(row == rows) & (column == columns)]
            yield from torch.split(same, max(1, batch_pixels // (rows * columns)))

    def images(self, chosen: Tensor, window: Window, multiple: int) -> tuple[Tensor, Tensor]:
        """Return images (B, C, H, W) in [0, 1] and masks (B, 1, H, W), float32, of slices `chosen` of one size.

        Air and background are added at the lower and right edge up to the next `multiple`.
        """
        rows, columns = int(self.rows[chosen[0]]), int(self.columns[chosen[0]])
        at = self.first[self.around[chosen], None] + torch.arange(rows * columns, device=self.hu.device)
        shape = (len(chosen), -1, rows, columns)
        more = (0, -columns % multiple, 0, -rows % multiple)
        hu = functional.pad(self.hu[at].reshape(shape).float(), more, value=float(AIR_HU))
        image = ((hu - window.low_hu) / (window.high_hu - window.low_hu)).clamp_(0, 1)
        return image, functional.pad(self.nodule[at[:, self.context]].reshape(shape).float(), more)

    def walk(self, start: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Go `steps` slices up (or down, where negative) from slices `start`, both int64 (B,); return where it ends.

        And whether all steps could be gone: the way ends at what was not packed and at the end of a series.
        """
        here, gone = start, torch.zeros_like(steps)
        for _ in range(int(steps.abs().max()) if self.context and len(steps) else 0):
            there = self.around[here, self.context + steps.sign()]
            moves = (gone < steps.abs()) & (there != here)
            here, gone = torch.where(moves, there, here), gone + moves
        return here, gone == steps.abs()

    def side(self, multiple: int) -> int:
        """Return the side of a square that holds every slice, a multiple of `multiple`."""
        side = int(torch.maximum(self.rows.max(), self.columns.max()))
        return side + -side % multiple


def _around(stacks: Sequence[SliceStack], context: int) -> NDArray[np.int64]:
    """Return (slice, 2 * context + 1): each slice's neighbours, lowest first."""
    first = np.cumsum([0, *(len(stack.hu) for stack in stacks)])[:-1]
    near = [begin + stack.neighbours(context) for begin, stack in zip(first, stacks, strict=True)]
    return np.concatenate([np.zeros((0, 2 * context + 1), np.int64), *near])


def _share_of_nodules(stack: SliceStack) -> NDArray[np.float64]:
    """Return for each slice to train on the sum over its nodules, 26-connected, of 1 / slices that show the nodule."""
    nodule = stack.nodule[stack.trained] > 0
    share = np.zeros(len(nodule))
    if not nodule.any():
        return share
    labels = cc3d.connected_components(nodule, connectivity=26)
    at, label = np.unique(np.stack((np.nonzero(labels)[0], labels[labels > 0])), axis=1)
    np.add.at(share, at, 1 / np.bincount(label)[label])
    return share
