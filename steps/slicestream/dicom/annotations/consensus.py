"""From the outlines of several readers to nodules: which are of one nodule, and which voxels are in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from slicestream.dicom.annotations.patches import Patch, overlap
from slicestream.errors import AnnotationError, OptionError

_NAMES = re.compile(r"majority|any|all|staple|level-[1-9][0-9]?")
_STAPLE_THRESHOLD = 0.5
_PAIRS_AT_ONCE = 1 << 21
_MAX_WORK = 1_000_000_000  # voxels and pairs of points; what readers draw takes a hundredth


@dataclass(frozen=True, kw_only=True, slots=True)
class Consensus:
    """How the outlines of one nodule become one. Raises OptionError on an unknown rule.

    Attributes
    ----------
    rule : "majority" (voxels of at least half of the readers who drew the nodule), "any", "all" (of them),
        "level-N" (at least N readers) or "staple" (Warfield et al. 2004, probability at least 0.5)
    minimum_readers : nodules drawn by fewer are left out
    """

    rule: str = "majority"
    minimum_readers: int = 1

    def __post_init__(self) -> None:
        if not _NAMES.fullmatch(self.rule):
            raise OptionError(f"--consensus {self.rule}: need majority, any, all, level-N (N from 1 to 99) or staple.")
        if self.minimum_readers < 1:
            raise OptionError(f"--minimum-readers {self.minimum_readers}: need 1 or more.")

    def merged(self, drawn: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Return the voxels of the nodule; `drawn` is one array per reader, (slice, row, column), of one shape."""
        if self.rule == "staple":
            return _staple(drawn)
        votes = np.sum(np.stack(drawn), axis=0, dtype=np.int64)
        if self.rule.startswith("level-"):
            needed = int(self.rule.removeprefix("level-"))
        else:
            needed = {"any": 1, "all": len(drawn), "majority": (len(drawn) + 1) // 2}[self.rule]
        return np.asarray(votes >= needed, np.bool_)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """What one reader drew of one nodule.

    Attributes
    ----------
    reader : which one, within the file
    edge_mm : points of the outline, (point, (slice, row, column)) in mm from the first voxel
    patch : the voxels that the outline encloses; of a mark that encloses none, the voxels of its points
    is_point : it encloses none
    """

    reader: int
    edge_mm: NDArray[np.float64]
    patch: Patch
    is_point: bool


def clustered(marks: Sequence[Mark], reach_mm: float, where: str) -> list[list[int]]:
    """Return which marks are of one nodule, as lists of their indices, in the order of their first ones.

    Two marks can be of one nodule where they share voxels or their outlines come within `reach_mm` (the rule of
    pylidc's `Scan.cluster_annotations`, metric "min", with the slice spacing as tolerance). Pairs are joined from the
    nearest on, of those that share voxels the one with the highest IoU first, points after outlines; a join that would
    bring two marks of one reader together is not made, for a reader marks a nodule once. Raises AnnotationError, named
    by `where`, rather than compare for minutes.
    """
    groups = {index: [index] for index in range(len(marks))}
    for pair in sorted(_pairs(marks, reach_mm, where)):
        one, other = (groups[index] for index in pair[-2:])
        if one is other or {marks[index].reader for index in one} & {marks[index].reader for index in other}:
            continue
        joined = sorted((*one, *other))
        groups |= dict.fromkeys(joined, joined)
    return sorted({id(group): group for group in groups.values()}.values())


def _pairs(marks: Sequence[Mark], reach_mm: float, where: str) -> Iterator[tuple[bool, float, float, int, int]]:
    """Yield (one is a point, distance in mm, minus the IoU, indices) of the marks that can be of one nodule."""
    work, sizes = 0, [mark.patch.size for mark in marks]
    low, high = (
        np.array([getattr(mark.edge_mm, end)(axis=0) for mark in marks]).reshape(-1, 3) for end in ("min", "max")
    )
    for k, n in combinations(range(len(marks)), 2):
        one, other = marks[k], marks[n]
        if one.reader == other.reader or max(*(low[k] - high[n]), *(low[n] - high[k])) > reach_mm:
            continue
        shared = overlap(one.patch, other.patch)
        work += min(one.patch.voxels.size, other.patch.voxels.size)
        work += 0 if shared else len(one.edge_mm) * len(other.edge_mm)
        if work > _MAX_WORK:
            raise AnnotationError(
                f"{where}: outlines of {len(marks)} nodules that are too many, or too long, to compare; need those of "
                "a chest. Leave the file out."
            )
        distance_mm = 0.0 if shared else _distance_mm(one.edge_mm, other.edge_mm)
        if distance_mm <= reach_mm:
            yield one.is_point or other.is_point, distance_mm, -shared / (sizes[k] + sizes[n] - shared), k, n


def _distance_mm(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    nearest, rows = np.inf, max(1, _PAIRS_AT_ONCE // len(other))
    for start in range(0, len(one), rows):
        difference = one[start : start + rows, None] - other[None]
        nearest = min(nearest, float(np.square(difference).sum(axis=2).min()))
    return float(np.sqrt(nearest))


def _staple(drawn: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    if all(np.array_equal(drawn[0], voxels) for voxels in drawn[1:]):
        return drawn[0]  # where all agree there is nothing to estimate: ITK's filter gives no number then
    estimate: Any = SimpleITK.STAPLE
    images = [SimpleITK.GetImageFromArray(voxels.astype(np.uint8)) for voxels in drawn]
    probability = SimpleITK.GetArrayFromImage(estimate(images, 1.0))
    return np.asarray(probability >= _STAPLE_THRESHOLD, np.bool_)
