"""Patches around candidates at two scales, as the network sees them that reduces false positives.

S scale, K kind, D plane, H row, W column. Planes, rows and columns are equally far apart in mm, whatever the distance
of the slices. What no slice shows is marked: a few slices of a nodule, a crop's edge and air are three things.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicestream.volumes.volume import Window

SCALES_MM = (1.0, 2.5)
SHAPE = (8, 24, 24)  # voxels of a patch: 8 × 24 × 24 mm, and 20 × 60 × 60 mm around it
PATCHES = (len(SCALES_MM), 2, *SHAPE)  # S, K, D, H, W of one candidate


@dataclass(frozen=True, kw_only=True, slots=True)
class Slab:
    """Slices to cut patches from; a slice need not be the next one's neighbour.

    Attributes
    ----------
    values : (slice, row, column): HU, or a mask
    slices_mm : float64 (slice,), ascending: where each lies along the slice axis
    spacing_mm : of the volume that the slices are from, along slice, row, column
    """

    values: NDArray[Any]
    slices_mm: NDArray[np.float64]
    spacing_mm: tuple[float, float, float]

    def place_mm(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where a fractional index (slice, row, column) lies."""
        along = np.interp(index[0], np.arange(len(self.slices_mm)), self.slices_mm)
        return np.array([along, index[1] * self.spacing_mm[1], index[2] * self.spacing_mm[2]])

    def cut(self, place_mm: NDArray[np.float64], *, scale_mm: float, reach_mm: float) -> NDArray[np.float32]:
        """Return (K, D, H, W) around a place: the values, 0 where unknown, and 1 where they are known.

        Linear between voxels; where these are finer than the patch, averaged. Slices further than `reach_mm` from the
        place count as unknown, but for the nearest.
        """
        _, rows, columns = self.values.shape
        axes = self.slices_mm, np.arange(rows) * self.spacing_mm[1], np.arange(columns) * self.spacing_mm[2]
        reaches = max(reach_mm, self.spacing_mm[0] / 2), np.inf, np.inf
        spans, weights, known = [], [], []
        for axis, (count, centre) in enumerate(zip(SHAPE, place_mm, strict=True)):
            wanted = centre + (np.arange(count) - (count - 1) / 2) * scale_mm
            width = max(scale_mm, self.spacing_mm[axis])
            reach = min(reaches[axis], wanted[-1] - centre + width)
            span = _between(axes[axis], centre - reach, centre + reach)
            apart = np.abs(wanted[:, None] - axes[axis][span])
            tent = np.maximum(0, 1 - apart / width)
            spans.append(span)
            weights.append((tent / np.maximum(tent.sum(axis=1, keepdims=True), 1e-6)).astype(np.float32))
            known.append(apart.min(axis=1, initial=np.inf) <= width / 2 + 1e-6)
        part = self.values[spans[0], spans[1], spans[2]].astype(np.float32)
        patch = np.tensordot(weights[0], weights[1] @ part @ weights[2].T, axes=1)
        there = known[0][:, None, None] & known[1][:, None] & known[2]
        return np.stack((patch * there, there.astype(np.float32)))

    def cut_scales(self, place_mm: NDArray[np.float64], *, reach_mm: float, zoom: float = 1.0) -> NDArray[np.float32]:
        """Return (S, K, D, H, W); with a `zoom` over 1 things look larger."""
        return np.stack([self.cut(place_mm, scale_mm=scale / zoom, reach_mm=reach_mm) for scale in SCALES_MM])


def _between(places: NDArray[np.floating[Any]], low: float, high: float) -> slice:
    first, last = np.searchsorted(places, (low - 1e-6, high + 1e-6))
    return slice(int(first), int(last))


def windowed(patches: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
    """Return patches (…, K, D, H, W) with HU as the network sees them: 0 to 1, and 0 where nothing is known."""
    known = patches[..., 1, :, :, :]
    return np.stack((window.scale(patches[..., 0, :, :, :]) * known, known), axis=-4)
