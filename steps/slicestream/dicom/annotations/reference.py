"""From a drawing to the reference artefact, which has no name and no patient coordinate."""

from __future__ import annotations

import numpy as np

from slicestream.dicom.annotations.drawing import Drawing, DrawnNodule
from slicestream.dicom.annotations.patches import voxel_counts
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.mask import Candidate, Mask, ReferenceNodule
from slicestream.volumes.volume import Volume


def reference_of(drawing: Drawing, volume: Volume, volume_hash: str, origin_lps_mm: tuple[float, float, float]) -> Mask:
    """Return the drawing as a reference; a nodule whose voxels all went to smaller ones is dropped.

    `origin_lps_mm` is the centre of the first voxel, which places without an outline are counted from.
    """
    voxels = voxel_counts(drawing.labels)
    present = [int(label) for label in np.flatnonzero(voxels) if label]
    nodules = {drawn.label: _nodule(drawn, None) for drawn in drawing.nodules if drawn.label}
    points = [
        _nodule(drawn, _index(drawn.centre_lps_mm, origin_lps_mm, volume.geometry))
        for drawn in drawing.nodules
        if drawn.label == 0 and drawn.centre_lps_mm is not None
    ]
    return Mask(
        kind="reference",
        id=volume.id,
        labels=drawing.labels,
        geometry=volume.geometry,
        volume_hash=volume_hash,
        candidates=tuple(Candidate(label=label, score=1.0, voxels=int(voxels[label])) for label in present),
        nodules=(*(nodules[label] for label in present), *points),
    )


def _nodule(drawn: DrawnNodule, index: tuple[float, float, float] | None) -> ReferenceNodule:
    return ReferenceNodule(
        label=drawn.label, form=drawn.form, readers=drawn.readers, ratings=dict(drawn.ratings), index=index
    )


def _index(
    centre_lps_mm: tuple[float, float, float], origin_lps_mm: tuple[float, float, float], geometry: Geometry
) -> tuple[float, float, float]:
    offset_mm = np.asarray(geometry.direction_lps) @ np.subtract(centre_lps_mm, origin_lps_mm)
    k, row, column = (round(float(n), 3) for n in offset_mm / np.asarray(geometry.spacing_mm))
    return k, row, column
