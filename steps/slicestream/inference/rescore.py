"""Candidates through the second network of a model, where it has one. Why: docs/decisions/0013."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slicestream.inference.model import Model
from slicestream.volumes.candidates import Rescore
from slicestream.volumes.patches import PATCHES, Slab, windowed
from slicestream.volumes.volume import Volume

_BATCH = 8


def rescorer(model: Model, volume: Volume) -> Rescore | None:
    """Return what scores candidates of `volume` by their centres; None where the model has no second network."""
    reach_mm = model.reach_mm
    if reach_mm is None:
        return None
    spacing_mm = volume.geometry.spacing_mm
    slab = Slab(
        values=volume.hu, slices_mm=np.arange(len(volume.hu), dtype=np.float64) * spacing_mm[0], spacing_mm=spacing_mm
    )

    def scores(centres: NDArray[np.float64]) -> NDArray[np.float32]:
        found = np.empty(len(centres), np.float32)
        for first in range(0, len(centres), _BATCH):
            some = centres[first : first + _BATCH]
            patches = np.zeros((_BATCH, *PATCHES), np.float32)  # one shape, so that a score hangs on no other candidate
            for patch, centre in zip(patches, some, strict=False):
                patch[:] = slab.cut_scales(slab.place_mm(centre), reach_mm=reach_mm)
            found[first : first + _BATCH] = model.score(windowed(patches, model.window))[: len(some)]
        return np.clip(found, 0.0, 1.0)

    return scores
