"""Batches of crops, turned, scaled, flipped and jittered, made on the device in one go from `SliceSet`'s flat pixels.

B batch, C channel, P patch side, N pixel. The channels of an image are neighbouring slices, moved alike; the mask is
that of the middle one. An affine map takes each pixel of the patch to a place in its slice, and the four
neighbours there are gathered: slices of any size meet in one batch and no pixel is touched that is not needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from slicestream.learning.blending import blended
from slicestream.learning.data import SliceSet
from slicestream.learning.group import part
from slicestream.learning.recipe import Augmentation
from slicestream.volumes.volume import AIR_HU, Window

_MARGIN_PX = 32  # a place lies at least half of this from a crop's edge


def make_batch(
    slices: SliceSet,
    chosen: Tensor,
    *,
    patch: int,
    window: Window,
    augmentation: Augmentation,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return images float32 (B, C, P, P) in [0, 1] and masks float32 (B, 1, P, P), 0 or 1, of slices `chosen` (B,).

    Where several processes train together, of this one's part of them.
    """
    device, images = slices.hu.device, len(chosen)
    dice = torch.rand((images, 12), generator=generator)[part(images)].to(device)
    chosen = chosen[part(images)]
    centre = _centres(slices, chosen, patch=patch, augmentation=augmentation, dice=dice[:, :5])
    hu, nodule = _stacked(slices, chosen, centre=centre, matrix=_matrices(augmentation, dice[:, 5:9]), patch=patch)
    hu = _jitter(hu, augmentation, dice[:, 9:], _noise(images, hu, augmentation, generator))
    return _scaled(hu, window), (nodule > 0.5).float().unsqueeze(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pasting:
    """What to lay crops of whole scans around, and which nodule to paste there.

    Attributes
    ----------
    place : int64 (B, 3), slice, row, column
    donor, middle, around_hu : int64 (B,) slice with the nodule, -1 for none; float32 (B, 2) its row and column there;
        float32 (B,) HU of the lung around it
    """

    place: Tensor
    donor: Tensor
    middle: Tensor
    around_hu: Tensor

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, some: slice | Tensor) -> Pasting:
        names = ("place", "donor", "middle", "around_hu")
        return Pasting(**{name: getattr(self, name)[some] for name in names})

    def split(self, parts: int) -> list[Pasting]:
        """Return so many parts of about one size."""
        return [self[some] for some in torch.arange(len(self)).tensor_split(parts)]


def make_scan_batch(
    slices: SliceSet,
    pasting: Pasting,
    *,
    patch: int,
    window: Window,
    augmentation: Augmentation,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return what `make_batch` does, of crops with their place anywhere in them and a nodule pasted there or not."""
    device = slices.hu.device
    images, pasting = len(pasting), pasting[part(len(pasting))]
    chosen = pasting.place[:, 0].to(device)
    dice = torch.rand((images, 13), generator=generator)[part(images)].to(device)
    offset = (dice[:, :2] - 0.5) * (patch - _MARGIN_PX)
    matrix = _matrices(augmentation, dice[:, 2:6])
    centre = pasting.place[:, 1:].to(device).float() - (matrix @ offset[:, :, None])[:, :, 0]
    hu, nodule = _stacked(slices, chosen, centre=centre, matrix=matrix, patch=patch)
    hu, nodule = _pasted(slices, pasting, (hu, nodule), offset=offset, turn=_matrices(augmentation, dice[:, 6:10]))
    hu = _jitter(hu, augmentation, dice[:, 10:], _noise(images, hu, augmentation, generator))
    return _scaled(hu, window), (nodule > 0.5).float().unsqueeze(1)


def _pasted(
    slices: SliceSet, pasting: Pasting, crop: tuple[Tensor, Tensor], *, offset: Tensor, turn: Tensor
) -> tuple[Tensor, Tensor]:
    """Return HU and nodule share of `crop` with the donors' nodules in it, at the scale of the scan.

    A neighbour gets what the donor's series shows as far up or down.
    """
    hu, nodule = crop
    with_one = torch.nonzero(pasting.donor.to(hu.device) >= 0).flatten()
    if not len(with_one):
        return crop
    donor = pasting.donor.to(hu.device)[with_one]
    scan = pasting.place[:, 0].to(hu.device)[with_one]
    around_hu = pasting.around_hu.to(hu.device)[with_one]
    matrix = turn[with_one] * (slices.pixel_mm[scan] / slices.pixel_mm[donor])[:, None, None]
    middle = pasting.middle.to(hu.device)[with_one] - (matrix @ offset[with_one][:, :, None])[:, :, 0]
    for channel in range(hu.shape[1]):
        away = channel - slices.context
        shown, reaches = _donor_beside(slices, donor, away * slices.slice_mm[scan])
        there, drawn = _seen(slices, shown, centre=middle, matrix=matrix, patch=hu.shape[-1])
        drawn = drawn * reaches[:, None, None]
        hu[with_one, channel] = blended(hu[with_one, channel], there, drawn, around_hu)
        if not away:
            nodule[with_one] = torch.maximum(nodule[with_one], drawn)
    return hu, nodule


def _donor_beside(slices: SliceSet, donor: Tensor, away_mm: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slices so far above donors (below, where negative), and whether their nodules reach there, float32.

    Series that end before show their last slice again, as far as a ball of the area in the donor's slice would reach.
    """
    found, known = slices.walk(donor, torch.round(away_mm / slices.slice_mm[donor]).long())
    radius_mm = (slices.nodule_count[donor] / math.pi) ** 0.5 * slices.pixel_mm[donor]
    return found, (known | (away_mm.abs() < radius_mm)).float()


def _stacked(slices: SliceSet, chosen: Tensor, *, centre: Tensor, matrix: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Return HU (B, C, P, P) of slices `chosen` and their neighbours, and the nodule share (B, P, P) of the former."""
    seen = [
        _seen(slices, shown, centre=centre, matrix=matrix, patch=patch) for shown in slices.around[chosen].unbind(dim=1)
    ]
    return torch.stack([hu for hu, _ in seen], dim=1), seen[slices.context][1]


def _seen(slices: SliceSet, chosen: Tensor, *, centre: Tensor, matrix: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Return HU and nodule share (B, P, P): output pixel (i, j) from the middle looks at centre + matrix · (i, j)."""
    axis = torch.arange(patch, device=slices.hu.device, dtype=torch.float32) - (patch - 1) / 2
    row = centre[:, 0, None, None] + matrix[:, 0, 0, None, None] * axis[:, None] + matrix[:, 0, 1, None, None] * axis
    column = centre[:, 1, None, None] + matrix[:, 1, 0, None, None] * axis[:, None] + matrix[:, 1, 1, None, None] * axis
    return _bilinear(slices, slices.first[chosen], (slices.rows[chosen], slices.columns[chosen]), (row, column))


def _scaled(hu: Tensor, window: Window) -> Tensor:
    return ((hu - window.low_hu) / (window.high_hu - window.low_hu)).clamp_(0, 1)


def _centres(slices: SliceSet, chosen: Tensor, *, patch: int, augmentation: Augmentation, dice: Tensor) -> Tensor:
    """Return (B, 2): where the middle of each crop lies, row and column."""
    size = torch.stack((slices.rows[chosen], slices.columns[chosen]), dim=1).float()
    half = patch / 2 - augmentation.overhang_px
    lowest = torch.minimum(torch.full_like(size, half), size / 2)
    highest = torch.maximum(size - half, size / 2)
    anywhere = lowest + dice[:, 0:2] * (highest - lowest)
    pixel = slices.nodule_pixel(chosen, dice[:, 2]) + (dice[:, 0:2] - 0.5) * (patch * 0.75)
    around = torch.maximum(torch.minimum(pixel, highest), lowest)
    at_nodule = (dice[:, 3] < augmentation.nodule_share) & (slices.nodule_count[chosen] > 0)
    return torch.where(at_nodule[:, None], around, anywhere) - 0.5


def _matrices(augmentation: Augmentation, dice: Tensor) -> Tensor:
    """Return (B, 2, 2): rotation, zoom and flips as one matrix on (row, column)."""
    angle = dice[:, 0] * (2 * math.pi if augmentation.rotate else 0.0)
    zoom = torch.exp((2 * dice[:, 1] - 1) * math.log(augmentation.zoom))
    sign = 1.0 - 2.0 * ((dice[:, 2:4] < 0.5) & augmentation.flip).float()
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    turn = torch.stack((torch.stack((cos, -sin), dim=1), torch.stack((sin, cos), dim=1)), dim=1)
    return turn * sign[:, None, :]


def _bilinear(
    slices: SliceSet, first: Tensor, size: tuple[Tensor, Tensor], place: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return HU and nodule share, float32 (B, P, P), at fractional rows and columns; air outside of the slice."""
    rows, columns = size[0][:, None, None], size[1][:, None, None]
    top, left = place[0].floor(), place[1].floor()
    down, right = place[0] - top, place[1] - left
    hu, nodule = torch.zeros_like(top), torch.zeros_like(top)
    for step_row, weight_row in ((0, 1 - down), (1, down)):
        for step_column, weight_column in ((0, 1 - right), (1, right)):
            row, column = top.long() + step_row, left.long() + step_column
            inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
            at = torch.where(inside, first[:, None, None] + row * columns + column, 0)
            weight = weight_row * weight_column
            hu += weight * torch.where(inside, slices.hu[at], AIR_HU)
            nodule += weight * (slices.nodule[at] * inside)
    return hu, nodule


def _noise(images: int, hu: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor | None:
    """Return noise for `hu`, part of so many images; drawn for all of them, so that chance is the same in each part."""
    if not augmentation.noise_hu:
        return None
    return torch.randn((images, *hu.shape[1:]), generator=generator)[part(images)].to(hu.device)


def _jitter(hu: Tensor, augmentation: Augmentation, dice: Tensor, noise: Tensor | None) -> Tensor:
    """Return HU with brightness, contrast (about -500 HU, the middle of lung and soft tissue) and noise changed."""
    signed = (2 * dice - 1)[:, :, None, None, None]
    hu = (hu + 500) * (1 + augmentation.gain * signed[:, 0]) - 500 + augmentation.shift_hu * signed[:, 1]
    if noise is not None:
        hu = hu + noise * (augmentation.noise_hu * dice[:, 2, None, None, None])
    return hu
