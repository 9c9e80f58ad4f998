"""A volume through a network, slice by slice, where it has to look."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from slicestream.inference.model import Model
from slicestream.inference.region import Window2D
from slicestream.volumes.candidates import LEVELS
from slicestream.volumes.volume import AIR_HU

Progress = Callable[[int], None]
FLIPS: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))


def predict(
    model: Model,
    hu: NDArray[np.int16],
    windows: Sequence[Window2D | None],
    *,
    flips: bool = False,
    progress: Progress = lambda _: None,
) -> NDArray[np.uint16]:
    """Return the probability of nodule, uint16 in steps of 1/65535, shape of `hu` (slice, row, column).

    Each slice is looked at in its window; without one, and outside, the probability is 0. What a window has beyond the
    slice is air. A model that sees neighbours gets them as channels, beyond the ends the first and the last slice
    again. With `flips` four answers are averaged: as is, mirrored along rows, along columns, along both. `progress` is
    told the number of slices done.
    """
    probability = np.zeros(hu.shape, np.uint16)
    seen = [(k, window) for k, window in enumerate(windows) if window]
    copies = FLIPS if flips else FLIPS[:1]
    answers = model.probabilities(_images(model, hu, seen, copies))
    for k, (rows, columns) in seen:
        there = probability[k, rows, columns]
        mean_B1HW = np.asarray(sum(np.flip(next(answers), axes) for axes in copies) / np.float32(len(copies)))
        kept = np.clip(mean_B1HW[0, 0, : there.shape[0], : there.shape[1]], 0.0, 1.0)
        there[:] = np.rint(kept * np.float32(LEVELS))
        progress(k + 1)
    progress(len(hu))
    return probability


def _images(
    model: Model, hu: NDArray[np.int16], seen: Sequence[tuple[int, Window2D]], copies: Sequence[tuple[int, ...]]
) -> Iterator[NDArray[np.float32]]:
    """Yield (1, channel, row, column) of each slice in its window, between its neighbours, in all mirrored copies."""
    air = model.window.scale(np.array([AIR_HU]))[0]
    for k, window in seen:
        around = np.clip(np.arange(k - model.context, k + model.context + 1), 0, len(hu) - 1)
        part = hu[around, *window]
        image = np.full((1, len(around), *(side.stop - side.start for side in window)), air, np.float32)
        image[0, :, : part.shape[1], : part.shape[2]] = model.window.scale(part)
        for axes in copies:
            yield np.ascontiguousarray(np.flip(image, axes))
