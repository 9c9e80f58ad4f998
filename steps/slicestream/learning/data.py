"""Training slices in memory: decoded once, kept as int16, never copied to float as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from slicestream.volumes.slices import SliceStack
from slicestream.volumes.volume import AIR_HU, Window


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceSet:
    """Slices of any sizes, one after the other.

    Attributes
    ----------
    hu, nodule : int16 and uint8, flat: all pixels of the first slice row by row, then of the second, …
    first, rows, columns : int64 per slice: place of its first pixel, its size
    nodule_at : int64, pixels of nodules within their slice (row * columns + column), slice by slice
    nodule_first, nodule_count : int64 per slice: its part of `nodule_at`
    pixel_mm : float32 per slice: distance of two rows
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

    @classmethod
    def from_stacks(cls, stacks: Sequence[SliceStack]) -> Self:
        """Take the slices of `stacks` in their order."""
        shapes = [stack.hu.shape[1:] for stack in stacks for _ in range(len(stack.hu))]
        rows = np.array([shape[0] for shape in shapes], np.int64)
        columns = np.array([shape[1] for shape in shapes], np.int64)
        hu = np.concatenate([np.zeros(0, np.int16), *(stack.hu.reshape(-1) for stack in stacks)])
        nodule = np.concatenate([np.zeros(0, np.uint8), *((stack.nodule > 0).reshape(-1) for stack in stacks)])
        pixels = rows * columns
        first = np.cumsum(pixels) - pixels
        marked = np.flatnonzero(nodule)
        owner = np.searchsorted(first, marked, side="right") - 1
        count = np.bincount(owner, minlength=len(rows)) if len(marked) else np.zeros(len(rows), np.int64)
        return cls(
            hu=torch.from_numpy(hu),
            nodule=torch.from_numpy(nodule.astype(np.uint8)),
            first=torch.from_numpy(first),
            rows=torch.from_numpy(rows),
            columns=torch.from_numpy(columns),
            nodule_at=torch.from_numpy(marked - first[owner] if len(marked) else np.zeros(1, np.int64)),
            nodule_first=torch.from_numpy(np.cumsum(count) - count),
            nodule_count=torch.from_numpy(count.astype(np.int64)),
            pixel_mm=torch.tensor([s.spacing_mm[1] for s in stacks for _ in range(len(s.hu))], dtype=torch.float32),
        )

    def views(self, stacks: Sequence[SliceStack]) -> Iterator[SliceStack]:
        """Yield `stacks`, which this set was made of, with its pixels for theirs: so they are in memory once."""
        begin = 0
        for stack in stacks:
            here = slice(begin, begin := begin + stack.hu.size)
            hu, nodule = (flat[here].numpy().reshape(stack.hu.shape) for flat in (self.hu, self.nodule))
            yield replace(stack, hu=hu, nodule=nodule)

    def __len__(self) -> int:
        return len(self.first)

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
        """Yield indices (B,) of slices of one size, at most `batch_pixels` pixels a batch, in order of size."""
        shapes = sorted({(int(r), int(c)) for r, c in zip(self.rows, self.columns, strict=True)})
        for rows, columns in shapes:
            same = torch.nonzero((self.rows == rows) & (self.columns == columns)).flatten()
            yield from torch.split(same, max(1, batch_pixels // (rows * columns)))

    def images(self, chosen: Tensor, window: Window, multiple: int) -> tuple[Tensor, Tensor]:
        """Return images (B, 1, H, W) in [0, 1] and masks, 0 or 1, float32, of slices `chosen` of one size.

        Air and background are added at the lower and right edge up to the next `multiple`.
        """
        rows, columns = int(self.rows[chosen[0]]), int(self.columns[chosen[0]])
        at = self.first[chosen, None] + torch.arange(rows * columns, device=self.hu.device)
        shape = (len(chosen), 1, rows, columns)
        more = (0, -columns % multiple, 0, -rows % multiple)
        hu = functional.pad(self.hu[at].reshape(shape).float(), more, value=float(AIR_HU))
        image = ((hu - window.low_hu) / (window.high_hu - window.low_hu)).clamp_(0, 1)
        return image, functional.pad(self.nodule[at].reshape(shape).float(), more)

    def side(self, multiple: int) -> int:
        """Return the side of a square that holds every slice, a multiple of `multiple`."""
        side = int(torch.maximum(self.rows.max(), self.columns.max()))
        return side + -side % multiple
