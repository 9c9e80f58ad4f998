"""CT slices with ground truth green, prediction red and their intersection yellow, as in the paper's Figure 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from slicestream import RESEARCH_ONLY
from slicestream.volumes.files import atomic_path
from slicestream.volumes.mask import Mask
from slicestream.volumes.volume import Volume, Window

GREEN, RED, YELLOW = (0, 200, 70), (230, 30, 40), (250, 220, 0)
OPACITY = 0.6
SMALL_PIXELS = 256  # images up to this wide are drawn SMALL_SCALE times larger
SMALL_SCALE = 3


def write_overlays(
    folder: Path, volume: Volume, mask: Mask, reference: Mask | None, *, at_most: int, window: Window
) -> list[Path]:
    """Write `<patient>-<series>-<slice>.png` for slices with a prediction or a reference; return their paths.

    `slice` is the index in the volume, from 0, four digits. Of more than `at_most` such slices those spread evenly
    are drawn, the first and the last among them.
    """
    paths = []
    for index, pixels in draw_overlays(volume, mask, reference, at_most=at_most, window=window):
        path = folder / f"{volume.id}-{index:04d}.png"
        _save(path, pixels)
        paths.append(path)
    return paths


def draw_overlays(
    volume: Volume, mask: Mask, reference: Mask | None, *, at_most: int, window: Window
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield index and RGB (row, column, 3) of the slices that `write_overlays` writes."""
    predicted = mask.labels > 0
    drawn = np.zeros_like(predicted) if reference is None else reference.labels > 0
    for index in chosen_slices(predicted | drawn, at_most):
        yield index, overlay(window.scale(volume.hu[index]), drawn[index], predicted[index])


def chosen_slices(marked: NDArray[np.bool_], at_most: int) -> list[int]:
    """Return indices of slices (axis 0) with a marked pixel, at most so many, evenly spread over those marked."""
    present = np.flatnonzero(marked.any(axis=(1, 2)))
    if len(present) > at_most:
        present = present[np.linspace(0, len(present) - 1, at_most).round().astype(int)]
    return [int(index) for index in present]


def overlay(
    grey: NDArray[np.floating[Any]], truth: NDArray[np.bool_], prediction: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return RGB uint8 (row, column, 3) of grey values in [0, 1] and two masks, all (row, column)."""
    rgb = np.repeat(grey[:, :, None] * 255.0, 3, axis=2)
    for where, colour in ((truth & ~prediction, GREEN), (prediction & ~truth, RED), (truth & prediction, YELLOW)):
        rgb[where] = (1 - OPACITY) * rgb[where] + OPACITY * np.array(colour)
    return rgb.round().astype(np.uint8)


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    image = Image.fromarray(pixels)
    if image.width <= SMALL_PIXELS:
        size = (image.width * SMALL_SCALE, image.height * SMALL_SCALE)
        image = image.resize(size, Image.Resampling.NEAREST)
    notice = PngImagePlugin.PngInfo()
    notice.add_text("Description", RESEARCH_ONLY)
    with atomic_path(path) as partial:
        image.save(partial, format="PNG", pnginfo=notice)
