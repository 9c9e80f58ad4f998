"""How well a mask agrees with a reference: overlap of voxels, and nodules hit and missed.

Definitions (docs/output.md repeats them for users):

- A reference nodule is one label of the reference; a candidate is one label of the mask, a 26-connected component.
- Hit: a candidate and a reference nodule whose 3D IoU is at least `HIT_IOU`. A reference nodule is found when at least
  one candidate hits it (several are one hit); a candidate that hits none is a false positive.
- Diameter: the longest extent in one axial slice, between the centres of two voxels, plus one pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from slicestream.errors import ArtefactError
from slicestream.volumes.mask import Mask
from slicestream.volumes.measures import longest_diameter_mm

HIT_IOU = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """Which candidates hit which reference nodules.

    Attributes
    ----------
    reference_labels, candidate_labels : the labels present, ascending
    iou : 3D IoU, (reference nodule, candidate)
    sizes : voxels of each candidate
    """

    reference_labels: tuple[int, ...]
    candidate_labels: tuple[int, ...]
    iou: NDArray[np.float64]
    sizes: tuple[int, ...]

    def candidates_of(self, reference_label: int) -> tuple[int, ...]:
        """Return the labels of the candidates that hit a reference nodule."""
        row = self.iou[self.reference_labels.index(reference_label)]
        return tuple(label for label, iou in zip(self.candidate_labels, row, strict=True) if iou >= HIT_IOU)

    def reference_of(self, candidate_label: int) -> int:
        """Return the label of the reference nodule that a candidate hits best, 0 where it hits none."""
        column = self.iou[:, self.candidate_labels.index(candidate_label)]
        if column.size == 0 or column.max() < HIT_IOU:
            return 0
        return self.reference_labels[int(column.argmax())]


def match(candidate_labels: NDArray[np.uint16], reference_labels: NDArray[np.uint16]) -> Match:
    """Compare two label arrays of the same shape (slice, row, column)."""
    candidates, candidate_sizes = _labels_and_sizes(candidate_labels)
    references, reference_sizes = _labels_and_sizes(reference_labels)
    both = (candidate_labels > 0) & (reference_labels > 0)
    shared = np.zeros((len(references), len(candidates)), np.int64)
    rows = np.searchsorted(references, reference_labels[both])
    columns = np.searchsorted(candidates, candidate_labels[both])
    np.add.at(shared, (rows, columns), 1)
    union = reference_sizes[:, None] + candidate_sizes[None, :] - shared
    return Match(
        reference_labels=tuple(int(label) for label in references),
        candidate_labels=tuple(int(label) for label in candidates),
        iou=shared / union,
        sizes=tuple(int(size) for size in candidate_sizes),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Nodule:
    """A reference nodule; `score` is the best of the candidates that hit it, `found_mm3` their volume, or None.

    `form`, `readers` and `malignancy` (1 to 5, the readers' mean) are the reference's; None where it says nothing.
    """

    label: int
    diameter_mm: float
    volume_mm3: float
    score: float | None
    found_mm3: float | None = None
    form: str = "outline"
    readers: int | None = None
    malignancy: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One series, compared: what every figure is summed from.

    Attributes
    ----------
    predicted, annotated, shared : voxels per slice in the mask, in the reference, in both; int64 (slice,)
    false_positive_scores : of the candidates that hit no reference nodule
    """

    patient: str
    series: str
    predicted: NDArray[np.int64]
    annotated: NDArray[np.int64]
    shared: NDArray[np.int64]
    nodules: tuple[Nodule, ...]
    false_positive_scores: tuple[float, ...]
    candidates: int
    model_hash: str


def compare(mask: Mask, reference: Mask) -> Case:
    """Compare a mask with its reference. Raises ArtefactError where they are not of one volume."""
    if mask.id != reference.id or mask.volume_hash != reference.volume_hash or mask.geometry != reference.geometry:
        raise ArtefactError(
            f"mask {mask.id} is of volume {mask.volume_hash[:12]}…, reference {reference.id} of "
            f"{reference.volume_hash[:12]}…; need both of one volume. Give each mask with its own reference."
        )
    matched = match(mask.labels, reference.labels)
    scores = {candidate.label: candidate.score for candidate in mask.candidates}
    boxes: Any = cc3d.statistics(reference.labels)["bounding_boxes"] if matched.reference_labels else ()
    try:
        misses = tuple(scores[label] for label in matched.candidate_labels if matched.reference_of(label) == 0)
        nodules = tuple(
            _nodule(reference, label, matched, scores, box=boxes[label]) for label in matched.reference_labels
        )
    except KeyError as error:
        raise ArtefactError(f"mask {mask.id}: label {error} has no score. Make it again.") from error
    found, drawn = mask.labels > 0, reference.labels > 0
    return Case(
        patient=mask.id.patient,
        series=mask.id.series,
        predicted=_per_slice(found),
        annotated=_per_slice(drawn),
        shared=_per_slice(found & drawn),
        nodules=nodules,
        false_positive_scores=misses,
        candidates=len(matched.candidate_labels),
        model_hash=mask.model_hash,
    )


def _nodule(
    reference: Mask, label: int, matched: Match, scores: dict[int, float], *, box: tuple[slice, slice, slice]
) -> Nodule:
    component = reference.labels[box] == label
    geometry = reference.geometry
    hits = matched.candidates_of(label)
    found = sum(matched.sizes[matched.candidate_labels.index(candidate)] for candidate in hits)
    known = next((nodule for nodule in reference.nodules if nodule.label == label), None)
    return Nodule(
        label=label,
        diameter_mm=longest_diameter_mm(component, geometry.spacing_mm),
        volume_mm3=float(np.count_nonzero(component)) * geometry.voxel_mm3,
        score=max((scores[candidate] for candidate in hits), default=None),
        found_mm3=found * geometry.voxel_mm3 if hits else None,
        form=known.form if known else "outline",
        readers=known.readers if known else None,
        malignancy=known.ratings.get("malignancy") if known else None,
    )


def _labels_and_sizes(labels: NDArray[np.uint16]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    counts = np.bincount(labels.reshape(-1))
    counts[0] = 0
    present = np.flatnonzero(counts)
    return present.astype(np.int64), counts[present].astype(np.int64)


def _per_slice(voxels: NDArray[Any]) -> NDArray[np.int64]:
    return np.asarray(np.count_nonzero(voxels, axis=(1, 2)), np.int64)
