"""One row per candidate, and one per reference nodule that no candidate hits."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from slicestream.volumes.mask import Mask
from slicestream.volumes.metrics import longest_diameter_mm, match
from slicestream.volumes.volume import Volume

STATUSES = ("true_positive", "false_positive", "missed", "candidate")


@dataclass(frozen=True, kw_only=True, slots=True)
class NoduleRow:
    """A row of nodules.csv, columns in this order; docs/output.md says each.

    Attributes
    ----------
    nodule : label in the mask and candidate number in the SEG; None in a missed nodule
    status : one of STATUSES; "candidate" where the series has no reference
    score : of the candidate, in [0, 1]; None in a missed nodule
    x_mm, y_mm, z_mm : centroid, DICOM patient coordinates (LPS)
    slice_first, slice_last : index in the volume, from 0
    matched : label in the reference of the nodule that is hit best, or missed; None else
    """

    patient: str
    series: str
    nodule: int | None
    status: str
    score: float | None
    volume_mm3: float
    longest_diameter_mm: float
    mean_hu: float
    x_mm: float
    y_mm: float
    z_mm: float
    slice_first: int
    slice_last: int
    matched: int | None


COLUMNS = tuple(column.name for column in fields(NoduleRow))
_DECIMALS = {"score": 4, "volume_mm3": 2, "longest_diameter_mm": 2, "mean_hu": 1, "x_mm": 2, "y_mm": 2, "z_mm": 2}


def nodule_rows(volume: Volume, mask: Mask, reference: Mask | None, origin_lps_mm: Sequence[float]) -> list[NoduleRow]:
    """Measure the candidates of one series by label, then the missed nodules.

    `origin_lps_mm` is the centre of the first voxel; mask and reference are of `volume` (not checked here).
    """
    scores = {candidate.label: candidate.score for candidate in mask.candidates}
    found = _measure(volume, mask.labels, origin_lps_mm)
    if reference is None:
        return [_row(volume, shape, nodule=n, status="candidate", score=scores.get(n)) for n, shape in found.items()]
    pairs = match(mask.labels, reference.labels)
    rows = []
    for label, shape in found.items():
        hit = pairs.reference_of(label)
        status = "true_positive" if hit else "false_positive"
        rows.append(_row(volume, shape, nodule=label, status=status, score=scores.get(label), matched=hit or None))
    for label, shape in _measure(volume, reference.labels, origin_lps_mm).items():
        if not pairs.candidates_of(label):
            rows.append(_row(volume, shape, status="missed", matched=label))
    return rows


def nodules_csv(rows: Iterable[NoduleRow]) -> str:
    """Return the table as CSV, sorted by patient and series, candidates before missed nodules."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in sorted(rows, key=lambda r: (r.patient, r.series, r.nodule is None, r.nodule or 0, r.matched or 0)):
        writer.writerow([_cell(name, value) for name, value in asdict(row).items()])
    return text.getvalue()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shape:
    volume_mm3: float
    longest_diameter_mm: float
    mean_hu: float
    centroid_lps_mm: tuple[float, float, float]
    slices: tuple[int, int]


def _measure(volume: Volume, labels: NDArray[np.uint16], origin_lps_mm: Sequence[float]) -> dict[int, _Shape]:
    if not labels.any():
        return {}
    geometry = volume.geometry
    statistics: Any = cc3d.statistics(labels)
    counts, boxes, centroids = (statistics[key] for key in ("voxel_counts", "bounding_boxes", "centroids"))
    shapes = {}
    for label in (int(n) for n in np.flatnonzero(counts) if n):
        box = boxes[label]
        inside = labels[box] == label
        centroid = np.asarray(origin_lps_mm, np.float64) + geometry.offset_lps_mm(np.asarray(centroids[label]))
        x, y, z = (float(mm) for mm in centroid)
        shapes[label] = _Shape(
            volume_mm3=float(counts[label]) * geometry.voxel_mm3,
            longest_diameter_mm=longest_diameter_mm(inside, geometry.spacing_mm),
            mean_hu=float(volume.hu[box][inside].mean(dtype=np.float64)),
            centroid_lps_mm=(x, y, z),
            slices=(box[0].start, box[0].stop - 1),
        )
    return shapes


def _row(
    volume: Volume,
    shape: _Shape,
    *,
    status: str,
    nodule: int | None = None,
    score: float | None = None,
    matched: int | None = None,
) -> NoduleRow:
    x, y, z = shape.centroid_lps_mm
    return NoduleRow(
        patient=volume.id.patient,
        series=volume.id.series,
        nodule=nodule,
        status=status,
        score=score,
        volume_mm3=shape.volume_mm3,
        longest_diameter_mm=shape.longest_diameter_mm,
        mean_hu=shape.mean_hu,
        x_mm=x,
        y_mm=y,
        z_mm=z,
        slice_first=shape.slices[0],
        slice_last=shape.slices[1],
        matched=matched,
    )


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    # + 0.0 turns -0.0 to 0.0
    return f"{round(value, _DECIMALS[name]) + 0.0:.{_DECIMALS[name]}f}" if isinstance(value, float) else str(value)
