"""What every format of annotations becomes: labels in the geometry of the series, and what is known of each nodule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from slicestream.volumes.geometry import Geometry


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesPlace:
    """What a format needs to know of the series that it was drawn on.

    Attributes
    ----------
    uid, frame_of_reference_uid : SeriesInstanceUID and FrameOfReferenceUID ("" where there is none)
    instance_uids : SOPInstanceUID of each slice, in the slice order of the volume (of frames: repeated)
    origin_lps_mm : centre of the first voxel in patient coordinates
    stack : as in `series.Series`; not "" where other stacks of the series lie at the same positions
    """

    uid: str
    frame_of_reference_uid: str
    instance_uids: tuple[str, ...]
    geometry: Geometry
    origin_lps_mm: tuple[float, float, float]
    stack: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnNodule:
    """One annotated object.

    Attributes
    ----------
    label : its value in `Drawing.labels`, 1, 2, …; 0 for a nodule that has a place but no outline (LIDC's under 3 mm)
    name : as the source calls it; stays on the laptop
    form : "outline", "sphere" (made of a centre and a diameter) or "point"
    readers : how many readers drew it
    ratings : by name, in the source's scale (LIDC: 1 to 5 or 6), the mean where several readers rated
    centre_lps_mm : in patient coordinates, where the source gives a place and no outline
    """

    label: int
    name: str = ""
    form: str = "outline"
    readers: int = 1
    ratings: Mapping[str, float] = field(default_factory=dict)
    centre_lps_mm: tuple[float, float, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """Labels uint16, (slice, row, column), 0 = background. Where two nodules overlap, the smaller one has the voxel."""

    labels: NDArray[np.uint16]
    nodules: tuple[DrawnNodule, ...]
    notes: tuple[str, ...] = ()
