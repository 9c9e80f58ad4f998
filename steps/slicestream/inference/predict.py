"""A volume through a network, slice by slice in batches of one fixed shape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from slicestream.inference.model import MULTIPLE, Model
from slicestream.volumes.candidates import LEVELS
from slicestream.volumes.volume import AIR_HU, Window

Progress = Callable[[int], None]
FLIPS: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))


def predict(
    model: Model,
    hu: NDArray[np.int16],
    *,
    batch_size: int,
    flips: bool = False,
    progress: Progress = lambda _: None,
) -> NDArray[np.uint16]:
    """Return the probability of nodule, uint16 in steps of 1/65535, shape of `hu` (slice, row, column).

    Batches have one shape: the last is filled with air slices, rows and columns are filled with air to a multiple of
    16. A model that sees neighbours gets them as channels, beyond the ends the first and the last slice again. With
    `flips` four answers are averaged: as is, mirrored along rows, along columns, along both. `progress` is told the
    number of slices done.
    """
    slices, rows, columns = hu.shape
    probability = np.empty(hu.shape, np.uint16)
    for first in range(0, slices, batch_size):
        part = hu[first : first + batch_size]
        around = np.arange(first, first + len(part))[:, None] + np.arange(-model.context, model.context + 1)
        image_BCHW = _filled(model.window, hu[np.clip(around, 0, slices - 1)], batch_size)
        answer_B1HW = _over_flips(model, image_BCHW) if flips else model.probability(image_BCHW)
        kept = np.clip(answer_B1HW[: len(part), 0, :rows, :columns], 0.0, 1.0)
        probability[first : first + len(part)] = np.rint(kept * np.float32(LEVELS))
        progress(first + len(part))
    return probability


def _filled(window: Window, hu: NDArray[np.int16], batch_size: int) -> NDArray[np.float32]:
    slices, channels, rows, columns = hu.shape
    shape = (batch_size, channels, -(-rows // MULTIPLE) * MULTIPLE, -(-columns // MULTIPLE) * MULTIPLE)
    image = np.full(shape, window.scale(np.array([AIR_HU]))[0], np.float32)
    image[:slices, :, :rows, :columns] = window.scale(hu)
    return image


def _over_flips(model: Model, image_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
    total = np.zeros_like(image_BCHW[:, :1])
    for axes in FLIPS:
        mirrored = np.ascontiguousarray(np.flip(image_BCHW, axes))
        total += np.flip(model.probability(mirrored), axes)
    return total / np.float32(len(FLIPS))
