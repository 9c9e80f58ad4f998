"""One crop's nodule laid over another crop's lung, so that neither a seam nor the noise tells where it is from.

B batch, P patch side.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

RIM_PX, FADE_PX = 3, 3  # so far around its mask a nodule comes along, and fades inwards and outwards of there
LUNG_HU = (-1000.0, -600.0)  # smoothed: lung without vessels, and no air around a patient
CLEAR_BELOW_HU = -500.0
GRAIN = (0.7, 1.4)  # a donor's noise and edges are taken by this factor, to be like those of the scan
_EDGE_HU = 80.0  # more than this is an edge, not noise


def blended(hu: Tensor, there: Tensor, drawn: Tensor, around_hu: Tensor) -> Tensor:
    """Return `hu` with the nodules of `there` in it, all float32 (B, P, P).

    `drawn` is the nodule's share of the pixels of `there`, `around_hu` (B,) the lung around it. The nodule keeps its
    contrast to lung and gets the noise of `hu`. One fades into the other as cosine and sine: the mean of two lungs
    would have less noise than either, and show as a smooth ring.
    """
    core = (drawn > 0.5).float()
    fade = _mean(_grown(core, RIM_PX), 2 * FADE_PX + 1)
    lung = _over(hu, (fade > 0) & (hu < CLEAR_BELOW_HU), otherwise=around_hu)
    fine, away = there - _mean(there, 3), fade == 0
    factor = ((_grain(hu, away) + 1) / (_grain(there, away) + 1)).nan_to_num(1).clamp(*GRAIN)
    nodule = there - around_hu[:, None, None] + (factor - 1) * fine
    angle = fade * (math.pi / 2)
    return hu + (torch.cos(angle) - 1) * (hu - lung) + torch.sin(angle) * nodule


def _grown(mask: Tensor, by: int) -> Tensor:
    tall = functional.max_pool2d(mask, (2 * by + 1, 1), 1, (by, 0))  # one axis after the other: less work
    return functional.max_pool2d(tall, (1, 2 * by + 1), 1, (0, by))


def _mean(image: Tensor, width: int) -> Tensor:
    tall = functional.avg_pool2d(image, (width, 1), 1, (width // 2, 0), count_include_pad=False)
    return functional.avg_pool2d(tall, (1, width), 1, (0, width // 2), count_include_pad=False)


def _over(image: Tensor, where: Tensor, *, otherwise: Tensor) -> Tensor:
    """Return the mean of `image` where `where` holds, `otherwise` (B,) where that is nowhere: (B, 1, 1)."""
    count = where.sum((1, 2))
    mean = (image * where).sum((1, 2)) / count.clamp(min=1)
    return torch.where(count > 0, mean, otherwise)[:, None, None]


def _grain(image: Tensor, away: Tensor) -> Tensor:
    """Return the mean absolute noise of clear lung `away` from the nodule, NaN where there is none: (B, 1, 1)."""
    smooth = _mean(image, 3)
    lung = (smooth > LUNG_HU[0]) & (smooth < LUNG_HU[1]) & away
    return _over((image - smooth).abs().clamp(max=_EDGE_HU), lung, otherwise=torch.full_like(image[:, 0, 0], torch.nan))
