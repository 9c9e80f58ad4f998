"""LIDC-IDRI XML: up to four readers' outlines and ratings of the nodules of a CT series, to one consensus.

An outline is a chain of pixels just outside the nodule ("the first voxel just outside", the XML's documentation; "the
outline itself did not overlap pixels belonging to the nodule", Armato et al. 2011, Med Phys 38:915), of the nodule as
well as of what is excluded from it. So a nodule's pixels are those that the chain encloses, without the chain; of an
exclusion the chain and what it encloses are taken away. pylidc does the same since its pull request 16, where an
author of that paper says so too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import cc3d
import numpy as np
from defusedxml.ElementTree import fromstring
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from slicestream.dicom.annotations.consensus import Consensus, Mark, clustered
from slicestream.dicom.annotations.drawing import Drawing, DrawnNodule, SeriesPlace
from slicestream.dicom.annotations.patches import Patch, check_extent, painted
from slicestream.errors import AnnotationError

ROOT, RADIOGRAPH_ROOT = "LidcReadMessage", "IdriReadMessage"
# What readers rate, and the highest value of each scale (the lowest is 1).
CHARACTERISTICS = {
    "subtlety": 5, "internalStructure": 4, "calcification": 6, "sphericity": 5, "margin": 5,
    "lobulation": 5, "spiculation": 5, "texture": 5, "malignancy": 5,
}  # fmt: skip
_MAX_BYTES = 16 << 20  # the largest file of LIDC-IDRI has under 2 MB
_MAX_NODULES = 300
_UPRIGHT = 0.9  # least |z| of the slices' normal with which a z position says which slice it is
_LOST = "outlines on slices that are not there, left out"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outline:
    """One chain of pixels (point, (row, column)) on a slice."""

    slice: int
    included: bool
    points: NDArray[np.int64]

    @property
    def low(self) -> NDArray[np.int64]:
        """Return the first (row, column) of the box around the chain and a pixel more."""
        return np.asarray(self.points.min(axis=0) - 1)

    @property
    def high(self) -> NDArray[np.int64]:
        """Return its last (row, column)."""
        return np.asarray(self.points.max(axis=0) + 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reading:
    """What one reader says of one nodule."""

    name: str
    mark: Mark
    ratings: dict[str, int]


def referenced(path: Path) -> str | None:
    """Return the SeriesInstanceUID that was read; None where the file is not of this format. Raises AnnotationError."""
    if path.suffix.lower() != ".xml":
        return None
    root = _root(path)
    if root is None:
        return None
    names = ("seriesinstanceuid",) if _name(root) == ROOT else ("cxrseriesinstanceuid", "seriesinstanceuid")
    for wanted in names:
        for element in root.iter():
            if _name(element).lower() == wanted and (element.text or "").strip():
                return str(element.text).strip()
    raise AnnotationError(f"{path}: no SeriesInstanceUid; need the series that was read. Fetch the file again.")


def read(
    path: Path, place: SeriesPlace, *, structure: str | None = None, consensus: Consensus | None = None
) -> Drawing | None:
    """Return the consensus of the readers; `structure` says nothing here: all that is drawn are nodules.

    Nodules under 3 mm, which are marked by a point, have the label 0 and a place. None where `place` is one stack of
    several and all was drawn on others. Raises AnnotationError.
    """
    root = _root(path)
    if root is None or _name(root) != ROOT:
        found = (
            f"readings of a chest radiograph ({RADIOGRAPH_ROOT})" if root is not None else "no readings of LIDC-IDRI"
        )
        raise AnnotationError(f"{path}: {found}; need those of a CT ({ROOT}). Leave the file out.")
    said: Counter[str] = Counter()
    readings = list(_readings(path, root, place, said))
    if place.stack and said[_LOST] and not readings:
        return None
    clusters = clustered([reading.mark for reading in readings], place.geometry.spacing_mm[0], str(path))
    return _agreed([[readings[k] for k in cluster] for cluster in clusters], place, consensus or Consensus(), said)


def _root(path: Path) -> Element | None:
    """Return the root of an LIDC-IDRI message, None where the file is another XML."""
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise AnnotationError(f"{path}: XML of {size} bytes; need at most {_MAX_BYTES}. Leave the file out.")
        text = path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror}). Check its rights.") from error
    try:
        root: Element = fromstring(text, forbid_dtd=True)
    except (ParseError, ValueError, LookupError) as error:  # defusedxml's refusals are ValueErrors
        if ROOT.encode() in text or RADIOGRAPH_ROOT.encode() in text:
            reason = " ".join(str(error).split())[:120]
            raise AnnotationError(
                f"{path}: XML cannot be read ({reason}); need a whole file without DTD and entities. Fetch it again."
            ) from error
        return None
    return root if _name(root) in (ROOT, RADIOGRAPH_ROOT) else None


def _readings(path: Path, root: Element, place: SeriesPlace, said: Counter[str]) -> Iterator[_Reading]:
    slices = {uid: index for index, uid in enumerate(place.instance_uids) if uid}
    sessions = _children(root, "readingSession")
    nodules = [
        (k, nodule) for k, session in enumerate(sessions) for nodule in _children(session, "unblindedReadNodule")
    ]
    if len(nodules) > _MAX_NODULES:
        raise AnnotationError(f"{path}: {len(nodules)} nodules drawn; need at most {_MAX_NODULES}. Leave the file out.")
    said["marks of what is no nodule, not read"] += sum(len(_children(session, "nonNodule")) for session in sessions)
    lost = extent = 0
    for reader, nodule in nodules:
        name = _text(nodule, "noduleID")
        outlines = []
        for roi in _children(nodule, "roi"):
            outline = _outline(f"{path}: nodule '{name[:40]}'", roi, place, slices)
            lost += outline is None
            outlines += [outline] if outline else []
        if outlines:
            extent += sum(int(np.prod(outline.high - outline.low)) for outline in outlines)
            check_extent(extent, str(path))
            mark = _mark(reader, outlines, place)
            extent += mark.patch.voxels.size
            check_extent(extent, str(path))
            yield _Reading(name=name, mark=mark, ratings=_ratings(nodule, said))
        else:
            said["marks without an outline on any slice of the series, left out"] += 1
    said[_LOST] += lost
    if lost and not place.stack and lost == sum(len(_children(nodule, "roi")) for _, nodule in nodules):
        raise AnnotationError(
            f"{path}: all {lost} outlines are on slices that the series does not have; need the CT that was read. "
            "Check that both are of one series."
        )


def _outline(where: str, roi: Element, place: SeriesPlace, slices: dict[str, int]) -> _Outline | None:
    """Return the outline, None where its slice is not there. Raises AnnotationError where it is malformed."""
    included = _text(roi, "inclusion").upper()
    if included not in ("TRUE", "FALSE"):
        raise AnnotationError(f"{where}: inclusion '{included[:20]}'; need TRUE or FALSE. Fetch the file again.")
    try:
        chain = [(int(_text(p, "yCoord")), int(_text(p, "xCoord"))) for p in _children(roi, "edgeMap")]
        z_text = _text(roi, "imageZposition")
        z_mm = float(z_text) if z_text else np.nan
    except ValueError as error:
        raise AnnotationError(f"{where}: {error}; need numbers as coordinates. Fetch the file again.") from error
    points = np.array(chain, np.object_).reshape(-1, 2)
    rows, columns = place.geometry.shape[1:]
    if not len(points) or (points < -1).any() or (points[:, 0] > rows).any() or (points[:, 1] > columns).any():
        raise AnnotationError(
            f"{where}: {'an outline leaves' if chain else 'no edgeMap within'} an image of {rows} x {columns} pixels; "
            "need an outline within it. Check that the file is of this series."
        )
    uid = _text(roi, "imageSOP_UID")
    index = slices[uid] if uid in slices else _slice_at(z_mm, place)
    return None if index is None else _Outline(slice=index, included=included == "TRUE", points=points.astype(np.int64))


def _slice_at(z_mm: float, place: SeriesPlace) -> int | None:
    """Return the slice within half a spacing of a position along z, None where another stack has a slice there too."""
    z_per_slice = place.geometry.spacing_mm[0] * place.geometry.direction_lps[0][2]
    if place.stack or not np.isfinite(z_mm) or abs(place.geometry.direction_lps[0][2]) < _UPRIGHT:
        return None
    index = (z_mm - place.origin_lps_mm[2]) / z_per_slice
    nearest = round(index)
    return nearest if abs(index - nearest) < 0.5 and 0 <= nearest < place.geometry.shape[0] else None


def _mark(reader: int, outlines: list[_Outline], place: SeriesPlace) -> Mark:
    points = np.concatenate([np.insert(o.points, 0, o.slice, axis=1) for o in outlines])
    patch = _enclosed(outlines).clipped(place.geometry.shape)
    is_point = patch.size == 0
    if is_point:
        start = points.min(axis=0)
        voxels = np.zeros(points.max(axis=0) - start + 1, np.bool_)
        voxels[tuple((points - start).T)] = True
        patch = Patch(start=(int(start[0]), int(start[1]), int(start[2])), voxels=voxels)
    edge_mm = np.unique(points, axis=0) * np.asarray(place.geometry.spacing_mm)
    return Mark(reader=reader, edge_mm=edge_mm, patch=patch, is_point=is_point)


def _enclosed(outlines: list[_Outline]) -> Patch:
    """Return what the outlines enclose: on each slice the inclusions, then without the exclusions and their chains."""
    low = np.min([[o.slice, *o.low] for o in outlines], axis=0)
    high = np.max([[o.slice, *o.high] for o in outlines], axis=0)
    voxels = np.zeros(high - low + 1, np.bool_)
    for outline in sorted(outlines, key=lambda o: not o.included):
        edge, inside = _filled(outline.points - outline.low)
        row, column = outline.low - low[1:]
        there = voxels[outline.slice - low[0], row : row + edge.shape[0], column : column + edge.shape[1]]
        if outline.included:
            there |= inside
        else:
            there &= ~(inside | edge)
    return Patch(start=(int(low[0]), int(low[1]), int(low[2])), voxels=voxels)


def _filled(points: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the chain, closed and without gaps, and what it encloses; bool (row, column), up to a pixel around it.

    Pixels are reached over their four sides, so that a chain that steps over a corner is closed; no rule of winding is
    needed, and a chain that runs along itself encloses nothing there.
    """
    rows, columns = points.max(axis=0) + 2
    image = Image.new("L", (int(columns), int(rows)))
    chain = [(int(column), int(row)) for row, column in points]
    ImageDraw.Draw(image).line([*chain, chain[0]], fill=1)
    edge = np.asarray(image) > 0
    edge[points[:, 0], points[:, 1]] = True
    regions = cc3d.connected_components(~edge, connectivity=4)
    return edge, (regions > 0) & (regions != regions[0, 0])


def _agreed(clusters: list[list[_Reading]], place: SeriesPlace, consensus: Consensus, said: Counter[str]) -> Drawing:
    nodules: list[DrawnNodule] = []
    patches: list[Patch] = []
    for cluster in clusters:
        outlined = [reading for reading in cluster if not reading.mark.is_point]
        together = outlined or cluster
        said["marks without an area on nodules that others outlined"] += len(cluster) - len(together)
        if len(together) < consensus.minimum_readers:
            said[f"nodules marked by fewer than {consensus.minimum_readers} readers, left out"] += 1
            continue
        if not outlined:
            nodules.append(_nodule(0, together, place))
            continue
        patch = _merged([reading.mark.patch for reading in outlined], place.geometry.shape, consensus)
        if patch.size == 0:
            said[f"nodules without a voxel by the rule '{consensus.rule}', left out"] += 1
            continue
        patches.append(patch)
        nodules.append(_nodule(len(patches), outlined, place))
    said["nodules with a place only (under 3 mm), no part of the mask"] += sum(not n.label for n in nodules)
    labels = painted(place.geometry.shape, patches)
    return Drawing(labels=labels, nodules=tuple(nodules), notes=tuple(f"{w}: {n}" for w, n in said.items() if n))


def _merged(drawn: list[Patch], shape: tuple[int, int, int], consensus: Consensus) -> Patch:
    """Return the consensus within the box around all of them and one voxel more, as far as the volume goes."""
    low = np.maximum(np.min([patch.start for patch in drawn], axis=0) - 1, 0)
    high = np.minimum(np.max([patch.stop for patch in drawn], axis=0) + 1, shape)
    voxels = consensus.merged([patch.within(low.tolist(), high.tolist()) for patch in drawn])
    return Patch(start=(int(low[0]), int(low[1]), int(low[2])), voxels=voxels)


def _nodule(label: int, readings: list[_Reading], place: SeriesPlace) -> DrawnNodule:
    given: dict[str, list[int]] = {}
    for reading in readings:
        for name, value in reading.ratings.items():
            given.setdefault(name, []).append(value)
    centre = np.mean([reading.mark.edge_mm.mean(axis=0) for reading in readings], axis=0)
    index = centre / np.asarray(place.geometry.spacing_mm)
    x, y, z = (float(mm) for mm in np.asarray(place.origin_lps_mm) + place.geometry.offset_lps_mm(index))
    return DrawnNodule(
        label=label,
        name=readings[0].name,
        form="outline" if label else "point",
        readers=len(readings),
        ratings={name: float(np.mean(given[name])) for name in CHARACTERISTICS if name in given},
        centre_lps_mm=None if label else (x, y, z),
    )


def _ratings(nodule: Element, said: Counter[str]) -> dict[str, int]:
    ratings = {}
    for characteristics in _children(nodule, "characteristics"):
        for name, highest in CHARACTERISTICS.items():
            text = _text(characteristics, name)
            if text.isdecimal() and 1 <= int(text[:9]) <= highest:
                ratings[name] = int(text)
            elif text:
                said["ratings out of their scale, left out"] += 1
    return ratings


def _name(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]


def _children(element: Element, name: str) -> list[Element]:
    return [child for child in element if _name(child) == name]


def _text(element: Element, name: str) -> str:
    for child in element:
        if _name(child) == name:
            return " ".join((child.text or "").split())
    return ""
