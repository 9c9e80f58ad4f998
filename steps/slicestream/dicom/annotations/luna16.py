"""LUNA16's annotations.csv: centre and diameter of each nodule. A sphere of them stands for an outline nobody drew.

Columns seriesuid, coordX, coordY, coordZ (world coordinates, DICOM's LPS, mm), diameter_mm; of LIDC-IDRI's nodules
those of 3 mm or more that at least three of four readers marked (Setio et al. 2017, Med Image Anal 42:1).
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slicestream.dicom.annotations.drawing import Drawing, DrawnNodule, SeriesPlace
from slicestream.dicom.annotations.patches import Patch, check_extent, painted
from slicestream.errors import AnnotationError
from slicestream.volumes.geometry import Geometry

TABLE = "annotations.csv"
_COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
_MAX_DIAMETER_MM = 500.0  # wider than a chest
_MAX_ROWS = 1_000_000
_ROUNDING_MM2 = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One nodule of the table: its series, the centre in LPS and the diameter, mm."""

    series: str
    centre_lps_mm: tuple[float, float, float]
    diameter_mm: float


def referenced(path: Path) -> str | None:
    """Return "": a table is of many series (`series_of`); None where the file is no such table."""
    return "" if _is_table(path) else None


def series_of(path: Path) -> frozenset[str]:
    """Return the SeriesInstanceUIDs that have a row. Raises AnnotationError."""
    return frozenset(row.series for row in read_table(path))


def read(path: Path, place: SeriesPlace, *, structure: str | None = None) -> Drawing:
    """Return the spheres of a series: voxels whose centre lies inside, the nearest one at least.

    `structure` says nothing here. Raises AnnotationError where a sphere lies outside the volume.
    """
    nodules, patches = [], []
    for row in read_table(path):
        if row.series != place.uid:
            continue
        offset = np.subtract(row.centre_lps_mm, place.origin_lps_mm)
        centre = np.asarray(place.geometry.direction_lps) @ offset / np.asarray(place.geometry.spacing_mm)
        if (centre < -0.5).any() or (centre > np.asarray(place.geometry.shape) - 0.5).any():
            slices, rows, columns = (f"{n:.0f}" for n in centre)
            raise AnnotationError(
                f"{path}: a nodule at slice {slices}, row {rows}, column {columns} of a series of "
                f"{place.geometry.shape} voxels; need a centre within it. Check that table and CT are of one series."
            )
        patches.append(_sphere(centre.tolist(), row.diameter_mm / 2, place.geometry))
        check_extent(sum(patch.voxels.size for patch in patches), str(path))
        nodules.append(DrawnNodule(label=len(patches), form="sphere"))
    if not nodules:
        raise AnnotationError(f"{path}: no row of this series; need one nodule or more. Leave the table out.")
    note = f"nodules that are spheres of a centre and a diameter, no outlines: {len(nodules)}"
    return Drawing(labels=painted(place.geometry.shape, patches), nodules=tuple(nodules), notes=(note,))


def read_table(path: Path) -> list[Row]:
    """Return the rows of the table. Raises AnnotationError, naming the line."""
    rows = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise AnnotationError(f"{path}: no column {', '.join(missing)}; need {','.join(_COLUMNS)}. Add it.")
            for fields in reader:
                rows.append(_row(f"{path}: line {reader.line_num}", fields))
                if len(rows) > _MAX_ROWS:
                    raise AnnotationError(f"{path}: over {_MAX_ROWS} rows; need LUNA16's table. Leave the file out.")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(f"{path}: not a CSV table in UTF-8 ({error}). Save it as CSV, UTF-8.") from error
    return rows


def _is_table(path: Path) -> bool:
    if path.name != TABLE:
        return False
    try:
        with path.open(encoding="utf-8-sig") as text:
            return _COLUMNS[0] in text.readline(4096).split(",")
    except (OSError, UnicodeDecodeError):
        return False


def _row(where: str, fields: dict[str, str | None]) -> Row:
    texts = {name: (fields[name] or "").strip() for name in _COLUMNS}
    try:
        x, y, z, diameter = (float(texts[name]) for name in _COLUMNS[1:])
    except ValueError as error:
        raise AnnotationError(f"{where}: {error}; need four numbers, mm. Correct the row.") from error
    if not texts["seriesuid"] or not all(math.isfinite(n) for n in (x, y, z)) or not 0 < diameter <= _MAX_DIAMETER_MM:
        raise AnnotationError(
            f"{where}: seriesuid '{texts['seriesuid'][:64]}', centre {x:g}, {y:g}, {z:g}, diameter {diameter:g} mm; "
            f"need a UID, a place and a diameter over 0, {_MAX_DIAMETER_MM:g} mm at most. Correct the row."
        )
    return Row(series=texts["seriesuid"], centre_lps_mm=(x, y, z), diameter_mm=diameter)


def _sphere(centre: list[float], radius_mm: float, geometry: Geometry) -> Patch:
    """Return the voxels of a volume whose centres lie within the radius of `centre` (index), the nearest one always."""
    axes, start = [], []
    for place, mm, count in zip(centre, geometry.spacing_mm, geometry.shape, strict=True):
        low, high = (math.ceil(place - radius_mm / mm), math.floor(place + radius_mm / mm))
        nearest = min(max(round(place), 0), count - 1)
        low, high = max(min(low, nearest), 0), min(max(high, nearest), count - 1)
        axes.append(np.square((np.arange(low, high + 1) - place) * mm))
        start.append(low)
    reach = max(radius_mm**2, float(sum(axis.min() for axis in axes))) + _ROUNDING_MM2
    plane = axes[1][:, None] + axes[2]
    voxels = np.stack([plane <= reach - square for square in axes[0]])
    return Patch(start=(start[0], start[1], start[2]), voxels=voxels)
