"""Volumes, masks and references of known content."""

import numpy as np

from slicestream.volumes.geometry import Geometry
from slicestream.volumes.mask import Candidate, Mask
from slicestream.volumes.volume import SeriesId, Volume

HASH = "ab" * 32


def series_id(patient=1, series=1):
    return SeriesId(patient=f"{patient:016x}", series=f"{series:016x}")


def volume(hu, spacing_mm=(1.0, 1.0, 1.0), patient=1, series=1):
    hu = np.asarray(hu, np.int16)
    geometry = Geometry(shape=hu.shape, spacing_mm=spacing_mm)
    return Volume(id=series_id(patient, series), hu=hu, geometry=geometry)


def reference(labels, spacing_mm=(1.0, 1.0, 1.0), patient=1, series=1, volume_hash=HASH):
    labels = np.asarray(labels, np.uint16)
    geometry = Geometry(shape=labels.shape, spacing_mm=spacing_mm)
    return Mask(
        kind="reference", id=series_id(patient, series), labels=labels, geometry=geometry, volume_hash=volume_hash
    )


def mask(labels, scores=None, *, spacing_mm=(1.0, 1.0, 1.0), patient=1, series=1, volume_hash=HASH):
    labels = np.asarray(labels, np.uint16)
    present = [int(label) for label in np.unique(labels) if label]
    scores = scores or dict.fromkeys(present, 0.9)
    return Mask(
        kind="mask",
        id=series_id(patient, series),
        labels=labels,
        geometry=Geometry(shape=labels.shape, spacing_mm=spacing_mm),
        volume_hash=volume_hash,
        model_hash="cd" * 32,
        candidates=tuple(Candidate(label=n, score=scores[n], voxels=int((labels == n).sum())) for n in present),
    )


def ball(shape, centre, radius_mm, spacing_mm=(1.0, 1.0, 1.0)):
    """Return bool, True within `radius_mm` of `centre` (indices)."""
    grids = np.ogrid[tuple(slice(0, n) for n in shape)]
    squared = sum(((g - c) * mm) ** 2 for g, c, mm in zip(grids, centre, spacing_mm, strict=True))
    return squared <= radius_mm**2
