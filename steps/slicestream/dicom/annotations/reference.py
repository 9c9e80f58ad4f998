"""From a drawing to the reference artefact, which has no name and no patient coordinate."""

from __future__ import annotations

import numpy as np

from slicestream.dicom.annotations.drawing import Drawing, DrawnNodule, SeriesPlace
from slicestream.dicom.annotations.patches import voxel_counts
from slicestream.volumes.mask import Candidate, Mask, ReferenceNodule
from slicestream.volumes.volume import SeriesId


def reference_of(drawing: Drawing, series: SeriesId, volume_hash: str, place: SeriesPlace) -> Mask:
    """Return the drawing as a reference; a nodule whose voxels all went to smaller ones is dropped."""
    voxels = voxel_counts(drawing.labels)
    present = [int(label) for label in np.flatnonzero(voxels) if label]
    nodules = {drawn.label: _nodule(drawn, None) for drawn in drawing.nodules if drawn.label}
    points = [
        _nodule(drawn, _index(drawn.centre_lps_mm, place))
        for drawn in drawing.nodules
        if drawn.label == 0 and drawn.centre_lps_mm is not None
    ]
    return Mask(
        kind="reference",
        id=series,
        labels=drawing.labels,
        geometry=place.geometry,
        volume_hash=volume_hash,
        candidates=tuple(Candidate(label=label, score=1.0, voxels=int(voxels[label])) for label in present),
        nodules=(*(nodules[label] for label in present), *points),
    )


def _nodule(drawn: DrawnNodule, index: tuple[float, float, float] | None) -> ReferenceNodule:
    return ReferenceNodule(
        label=drawn.label, form=drawn.form, readers=drawn.readers, ratings=dict(drawn.ratings), index=index
    )


def _index(centre_lps_mm: tuple[float, float, float], place: SeriesPlace) -> tuple[float, float, float]:
    offset_mm = np.asarray(place.geometry.direction_lps) @ np.subtract(centre_lps_mm, place.origin_lps_mm)
    k, row, column = (round(float(n), 3) for n in offset_mm / np.asarray(place.geometry.spacing_mm))
    return k, row, column
