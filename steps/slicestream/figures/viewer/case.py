"""One series for the viewer: what its list shows, and its voxels."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from slicestream.figures.nodules import NoduleRow, nodule_rows
from slicestream.figures.viewer.grid import ViewGrid, nifti_header, view_grid
from slicestream.figures.viewer.packing import pack_hu, pack_labels
from slicestream.volumes.documents import Facts
from slicestream.volumes.mask import Mask
from slicestream.volumes.measures import measure
from slicestream.volumes.volume import Volume

NO_ORIGIN = (0.0, 0.0, 0.0)  # it stays where the identities are
REFERENCE, PREDICTION = 1, 2  # bits of a label: 3 is where both are


def entry(volume: Volume, mask: Mask, reference: Mask | None) -> Facts:
    """Return what the page knows of a series before its voxels are loaded: no voxels, all of its nodules."""
    grid = view_grid(volume.geometry)
    return {
        "id": str(volume.id),
        "shape": list(volume.geometry.shape),
        "spacing_mm": list(volume.geometry.spacing_mm),
        # the viewer's axis (0 to 2) of slice, row and column, and whether the index grows the other way
        "axes": [[grid.order.index(axis), grid.flipped[grid.order.index(axis)]] for axis in range(3)],
        "compared": reference is not None,
        "nodules": _nodules(grid, volume, mask, reference),
    }


def script(volume: Volume, mask: Mask, reference: Mask | None) -> str:
    """Return the script file of a series: a call that hands its voxels to the page."""
    grid = view_grid(volume.geometry)
    labels = (mask.labels > 0).astype(np.uint8) * PREDICTION
    if reference is not None:
        labels |= (reference.labels > 0).astype(np.uint8) * REFERENCE
    voxels = {
        "id": str(volume.id),
        "header": base64.b64encode(nifti_header(grid)).decode("ascii"),
        "hu": pack_hu(grid.arrange(volume.hu)),
        "labels": pack_labels(grid.arrange(labels)),
    }
    return f"sliceStream({json.dumps(voxels, separators=(',', ':'))});\n"


def _nodules(grid: ViewGrid, volume: Volume, mask: Mask, reference: Mask | None) -> list[Facts]:
    """Return the rows of nodules.csv with a key and a place: candidates, missed nodules, places without an outline."""
    centres, drawn = _centres(mask.labels), _centres(reference.labels) if reference else {}
    found = []
    measured = measure(volume, mask.labels, NO_ORIGIN)
    for row in nodule_rows(volume, mask, reference, NO_ORIGIN, found=measured):
        missed = row.nodule is None
        index = drawn[row.matched or 0] if missed else centres[row.nodule or 0]
        found.append(_nodule(f"r{row.matched}" if missed else str(row.nodule), row, grid, index))
    points = [nodule.index for nodule in reference.nodules if nodule.index] if reference else []
    for number, point in enumerate(points, start=1):
        found.append({"key": f"p{number}", "status": "place", "slice": round(point[0]), "at": list(grid.place(point))})
    return found


def _nodule(key: str, row: NoduleRow, grid: ViewGrid, index: Sequence[int]) -> Facts:
    return {
        "key": key,
        "status": row.status,
        "score": row.score,
        "volume_mm3": round(row.volume_mm3, 1),
        "longest_diameter_mm": round(row.longest_diameter_mm, 1),
        "mean_hu": round(row.mean_hu),
        "slice": index[0],
        "at": [int(n) for n in grid.place((index[0], index[1], index[2]))],
    }


def _centres(labels: NDArray[np.uint16]) -> dict[int, tuple[int, int, int]]:
    """Return for each label its voxel (slice, row, column) next to the centroid: a bent nodule's own lies outside."""
    if not labels.any():
        return {}
    statistics: Any = cc3d.statistics(labels)
    centres = {}
    for label in (int(n) for n in np.flatnonzero(statistics["voxel_counts"]) if n):
        box = statistics["bounding_boxes"][label]
        places = np.argwhere(labels[box] == label) + [part.start for part in box]
        k, row, column = places[((places - statistics["centroids"][label]) ** 2).sum(axis=1).argmin()]
        centres[label] = (int(k), int(row), int(column))
    return centres
