"""Segmentation networks. B batch, C channel, H row, W column."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvPair(nn.Module):
    """Two 3×3 convolutions, each with batch norm and ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """BxCxHxW to BxC'xHxW."""
        return self.body(features_BCHW)  # type: ignore[no-any-return]


class UNet(nn.Module):
    """Ronneberger et al. 2015 (arXiv:1505.04597) with padded convolutions and batch norm."""

    def __init__(self, widths: Sequence[int], *, channels: int = 1) -> None:
        super().__init__()
        self.widths, self.channels = tuple(widths), channels
        self.down = nn.ModuleList(
            ConvPair(before, here) for before, here in zip((channels, *widths[:-1]), widths, strict=True)
        )
        steps_up = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        # A 1×1 convolution before upsampling costs a quarter of one after it.
        self.reduce = nn.ModuleList(nn.Conv2d(below, here, 1) for below, here in steps_up)
        self.up = nn.ModuleList(ConvPair(2 * here, here) for _, here in steps_up)
        self.head = nn.Conv2d(widths[0], 1, 1)

    @property
    def multiple(self) -> int:
        """What rows and columns must be a multiple of."""
        return int(2 ** (len(self.widths) - 1))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """BxCxHxW in [0, 1], H and W multiples of `multiple`, to logits Bx1xHxW of the middle slice."""
        features = self.down[0](image_BCHW)
        skips = []
        for stage in self.down[1:]:
            skips.append(features)
            features = stage(functional.max_pool2d(features, 2))
        for reduce, stage, skip in zip(self.reduce, self.up, reversed(skips), strict=True):
            larger = functional.interpolate(reduce(features), scale_factor=2.0, mode="nearest")
            features = stage(torch.cat((skip, larger), dim=1))
        return self.head(features)  # type: ignore[no-any-return]


def build_unet(widths: Sequence[int], *, channels: int = 1) -> UNet:
    """Return a U-Net of `channels` slices with `widths` channels from the finest to the coarsest level.

    He-initialised, nodules rare.
    """
    network = UNet(widths, channels=channels)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    # The first guess is "1 pixel in 50": training need not unlearn half of the image (Lin et al. 2017, 4.1).
    nn.init.zeros_(network.head.weight)
    nn.init.constant_(network.head.bias, -4.0)  # type: ignore[arg-type]
    return network


def architecture_name(widths: Sequence[int], *, channels: int = 1) -> str:
    """Return e.g. "unet-24x5": channels at the finest level, number of levels; "unet-24x5-3" where it sees 3 slices."""
    return f"unet-{widths[0]}x{len(widths)}" + (f"-{channels}" if channels > 1 else "")


class ScalePath(nn.Module):
    """What one scale of a patch shows, as features: three 3×3×3 convolutions, each with batch norm and ReLU."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(before, here, 3, padding=1, bias=False), nn.BatchNorm3d(here), nn.ReLU(inplace=True)
            )
            for before, here in zip((2, *widths[:-1]), widths, strict=True)
        )

    def forward(self, patch_BKDHW: Tensor) -> Tensor:
        """Bx2xDxHxW, HU in [0, 1] and 1 where known, to BxF: of the last channels mean of the middle, and maximum."""
        # Along the slices there is little to see: they are halved once.
        halved_HW = functional.max_pool3d(self.stages[0](patch_BKDHW), (1, 2, 2))
        features = self.stages[2](functional.max_pool3d(self.stages[1](halved_HW), 2))
        plane, row, column = (slice(n // 2 - 1, n // 2 + 1) for n in features.shape[2:])
        middle = features[:, :, plane, row, column]  # a candidate lies there, other structures all around
        return torch.cat((middle.mean((2, 3, 4)), features.amax((2, 3, 4))), dim=1)


class TwoPath(nn.Module):
    """Is it a nodule? Patches at two scales, fused late (as Dou et al. 2017, doi:10.1109/TBME.2016.2613502, do)."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.near, self.far = ScalePath(widths), ScalePath(widths)
        self.head = nn.Sequential(nn.Linear(4 * widths[-1], 32), nn.ReLU(inplace=True), nn.Linear(32, 1))

    def forward(self, patches_BSKDHW: Tensor) -> Tensor:
        """Bx2x2xDxHxW, near then far, to logits B."""
        features = torch.cat((self.near(patches_BSKDHW[:, 0]), self.far(patches_BSKDHW[:, 1])), dim=1)
        return self.head(features)[:, 0]  # type: ignore[no-any-return]
