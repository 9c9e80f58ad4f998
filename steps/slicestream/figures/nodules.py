"""One row per candidate, and one per reference nodule that no candidate hits."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from slicestream.volumes.mask import Mask
from slicestream.volumes.measures import DECIMALS, Measures, measure, rounded
from slicestream.volumes.metrics import match
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
    perpendicular_diameter_mm: float
    mean_hu: float
    std_hu: float
    x_mm: float
    y_mm: float
    z_mm: float
    slice_first: int
    slice_last: int
    matched: int | None


COLUMNS = tuple(column.name for column in fields(NoduleRow))


def nodule_rows(
    volume: Volume,
    mask: Mask,
    reference: Mask | None,
    origin_lps_mm: Sequence[float],
    *,
    found: Mapping[int, Measures],
) -> list[NoduleRow]:
    """Return the candidates of one series by label, then the missed nodules.

    `origin_lps_mm` is the centre of the first voxel; mask and reference are of `volume` (not checked here). `found`:
    the mask, measured.
    """
    scores = {candidate.label: candidate.score for candidate in mask.candidates}
    if reference is None:
        return [_row(volume, shape, nodule=n, status="candidate", score=scores.get(n)) for n, shape in found.items()]
    pairs = match(mask.labels, reference.labels)
    rows = []
    for label, shape in found.items():
        hit = pairs.reference_of(label)
        status = "true_positive" if hit else "false_positive"
        rows.append(_row(volume, shape, nodule=label, status=status, score=scores.get(label), matched=hit or None))
    for label, shape in measure(volume, reference.labels, origin_lps_mm).items():
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


def _row(
    volume: Volume,
    shape: Measures,
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
        perpendicular_diameter_mm=shape.perpendicular_diameter_mm,
        mean_hu=shape.mean_hu,
        std_hu=shape.std_hu,
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
    return f"{rounded(name, value):.{DECIMALS[name]}f}" if isinstance(value, float) else str(value)
