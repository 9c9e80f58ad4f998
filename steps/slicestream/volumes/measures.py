"""What is measured of an object, once for all who state it: the nodule table, the report, the DICOM SR.

- Volume: voxels times the volume of a voxel.
- Longest diameter: the longest distance between the centres of two voxels in one acquired slice, plus one pixel.
- Perpendicular diameter: in that slice, the longest chord at a right angle to that line, plus one pixel.

Long and short axis in one slice, at a right angle: as in RECIST 1.1 (Eisenhauer et al., Eur J Cancer 2009;45:228) and
in the Fleischner Society's recommendations (Bankier et al., Radiology 2017;285:584), whose nodule size is their mean.
The line may leave the object where it is not convex.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from slicestream.volumes.volume import Volume

# how far each is written down, everywhere
DECIMALS = {
    "score": 4,
    "volume_mm3": 2,
    "longest_diameter_mm": 2,
    "perpendicular_diameter_mm": 2,
    "mean_hu": 1,
    "std_hu": 1,
    "x_mm": 2,
    "y_mm": 2,
    "z_mm": 2,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Measures:
    """One object, measured; `std_hu` is that of the population, `slices` the first and last index, from 0.

    `centroid_lps_mm` is in patient coordinates.
    """

    volume_mm3: float
    longest_diameter_mm: float
    perpendicular_diameter_mm: float
    mean_hu: float
    std_hu: float
    centroid_lps_mm: tuple[float, float, float]
    slices: tuple[int, int]

    def written(self, name: str) -> float:
        """Return a figure rounded as it is written down."""
        return rounded(name, getattr(self, name))


def rounded(name: str, value: float) -> float:
    """Return a figure as it is written down; never -0.0."""
    return round(value, DECIMALS[name]) + 0.0


def measure(volume: Volume, labels: NDArray[np.uint16], origin_lps_mm: Sequence[float]) -> dict[int, Measures]:
    """Return the measures of each label, ascending; labels (slice, row, column) in the volume's geometry.

    `origin_lps_mm` is the centre of the first voxel.
    """
    if not labels.any():
        return {}
    geometry = volume.geometry
    statistics: Any = cc3d.statistics(labels)
    counts, boxes, centroids = (statistics[key] for key in ("voxel_counts", "bounding_boxes", "centroids"))
    found = {}
    for label in (int(n) for n in np.flatnonzero(counts) if n):
        box = boxes[label]
        inside = labels[box] == label
        hu = volume.hu[box][inside].astype(np.float64)
        centroid = np.asarray(origin_lps_mm, np.float64) + geometry.offset_lps_mm(np.asarray(centroids[label]))
        x, y, z = (float(mm) for mm in centroid)
        longest_mm, perpendicular_mm = diameters_mm(inside, geometry.spacing_mm)
        found[label] = Measures(
            volume_mm3=float(counts[label]) * geometry.voxel_mm3,
            longest_diameter_mm=longest_mm,
            perpendicular_diameter_mm=perpendicular_mm,
            mean_hu=float(hu.mean()),
            std_hu=float(hu.std()),
            centroid_lps_mm=(x, y, z),
            slices=(box[0].start, box[0].stop - 1),
        )
    return found


def longest_diameter_mm(component: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> float:
    """Return the first of `diameters_mm`."""
    return _longest(component, spacing_mm)[0]


def diameters_mm(component: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> tuple[float, float]:
    """Return the longest diameter of one object and the one perpendicular to it in the same slice, mm.

    Parameters
    ----------
    component : bool, (slice, row, column), True where the object is (crop it to its box first: it is faster)
    spacing_mm : along slice, row, column

    Between centres of voxels, plus one pixel (mean of row and column spacing), so that a disc of n pixels across
    measures n pixels. Of several slices with the same longest diameter the first counts. 0 for an empty object.
    """
    longest_mm, index, line_yx = _longest(component, spacing_mm)
    if index < 0:
        return 0.0, 0.0
    pixel_mm = (spacing_mm[1] + spacing_mm[2]) / 2
    length = float(np.hypot(*line_yx))
    along = line_yx / length if length else np.array([0.0, 1.0])
    places_mm = np.argwhere(component[index]) * np.array(spacing_mm[1:])
    # strips one pixel wide across the line; in each, how far the object reaches at a right angle to it
    strip = np.rint((places_mm - places_mm[0]) @ along / pixel_mm).astype(np.int64)
    strip -= strip.min()
    across = places_mm @ np.array([-along[1], along[0]])
    low, high = np.full(strip.max() + 1, np.inf), np.full(strip.max() + 1, -np.inf)
    np.minimum.at(low, strip, across)
    np.maximum.at(high, strip, across)
    return longest_mm, float((high - low).max()) + pixel_mm


def _longest(
    component: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> tuple[float, int, NDArray[np.float64]]:
    """Return the longest diameter, the slice it is in (-1: empty) and the line between its ends (row, column), mm."""
    _, row_mm, column_mm = spacing_mm
    longest, found, line = -1.0, -1, np.zeros(2)
    for index, plane in enumerate(component):
        rows = np.flatnonzero(plane.any(axis=1))
        if rows.size == 0:
            continue
        # only the outermost voxels of a row can be an end of the longest line
        first = plane[rows].argmax(axis=1)
        last = plane.shape[1] - 1 - plane[rows][:, ::-1].argmax(axis=1)
        ends = np.stack([np.concatenate([rows, rows]) * row_mm, np.concatenate([first, last]) * column_mm], axis=1)
        squared = (ends[:, None, 0] - ends[None, :, 0]) ** 2 + (ends[:, None, 1] - ends[None, :, 1]) ** 2
        place = int(squared.argmax())
        if (distance := float(np.sqrt(squared.flat[place]))) > longest:
            one, other = divmod(place, len(ends))
            longest, found, line = distance, index, ends[other] - ends[one]
    return (0.0 if longest < 0 else longest + (row_mm + column_mm) / 2), found, line
