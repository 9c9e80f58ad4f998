"""LIDC-IDRI messages and places of series, made for one test each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicestream.dicom.annotations.drawing import SeriesPlace
from slicestream.volumes.geometry import Geometry

SERIES = "1.2.826.0.1.3680043.10.1.1"
RATED = {"subtlety": 4, "internalStructure": 1, "calcification": 6, "sphericity": 3, "margin": 4}
RATED |= {"lobulation": 2, "spiculation": 1, "texture": 5, "malignancy": 3}
Chain = Sequence[tuple[int, int]]  # (row, column)


def place(
    shape: tuple[int, int, int] = (6, 32, 32),
    spacing_mm: tuple[float, float, float] = (2.0, 0.5, 0.5),
    *,
    down: bool = False,
) -> SeriesPlace:
    """A series whose slice k has the SOPInstanceUID `SERIES.k`, first voxel at (-10, -20, 100) mm."""
    sign = -1.0 if down else 1.0
    return SeriesPlace(
        uid=SERIES,
        frame_of_reference_uid="",
        instance_uids=tuple(f"{SERIES}.{k}" for k in range(shape[0])),
        geometry=Geometry(
            shape=shape, spacing_mm=spacing_mm, direction_lps=((0.0, 0.0, sign), (0.0, 1.0, 0.0), (sign, 0.0, 0.0))
        ),
        origin_lps_mm=(-10.0, -20.0, 100.0),
    )


def box(top: int, left: int, height: int, width: int) -> list[tuple[int, int]]:
    """The chain of pixels just outside a rectangle of pixels, all of them, in order."""
    above, below, before, after = top - 1, top + height, left - 1, left + width
    chain = [(above, column) for column in range(before, after)]
    chain += [(row, after) for row in range(above, below)]
    chain += [(below, column) for column in range(after, before, -1)]
    return chain + [(row, before) for row in range(below, above, -1)]


def ring(inside: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The chain of pixels that share a side with a round shape, in the order of their angles."""
    padded = np.pad(inside, 1)
    near = np.zeros_like(padded)
    for axis in (0, 1):
        near |= np.roll(padded, 1, axis) | np.roll(padded, -1, axis)
    rows, columns = np.nonzero(near & ~padded)
    middle_row, middle_column = (float(n.mean()) for n in np.nonzero(padded))
    order = np.argsort(np.arctan2(rows - middle_row, columns - middle_column))
    return [(int(rows[k]) - 1, int(columns[k]) - 1) for k in order]


def roi(chain: Chain, k: int = 0, *, uid: str | None = None, z_mm: float | str = "", inclusion: str = "TRUE") -> str:
    """An outline on slice k (or on the slice that `uid` names)."""
    uid = f"{SERIES}.{k}" if uid is None else uid
    points = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for y, x in chain)
    return (
        f"<roi><imageZposition>{z_mm}</imageZposition><imageSOP_UID>{uid}</imageSOP_UID>"
        f"<inclusion>{inclusion}</inclusion>{points}</roi>"
    )


def nodule(*rois: str, name: str = "Nodule 001", ratings: Mapping[str, object] | None = RATED) -> str:
    """A nodule as one reader draws it."""
    rated = "".join(f"<{name}>{value}</{name}>" for name, value in (ratings or {}).items())
    return (
        f"<unblindedReadNodule><noduleID>{name}</noduleID><characteristics>{rated}</characteristics>"
        f"{''.join(rois)}</unblindedReadNodule>"
    )


def message(path: Path, sessions: Iterable[Sequence[str]], *, uid: str = SERIES, space: bool = True) -> Path:
    """Write a message with one reading session per reader."""
    sessions = "".join(
        "<readingSession><annotationVersion>3.12</annotationVersion><servicingRadiologistID>anon</servicingRadiologistID>"
        f"{''.join(marks)}</readingSession>"
        for marks in sessions
    )
    where = ' xmlns="http://www.nih.gov" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"' if space else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<?xml version="1.0" encoding="UTF-8"?>\n<LidcReadMessage uid="1.3.6.1.4.1.14519.5.2.1.6279.6001.1"{where}>'
        f"<ResponseHeader><Version>1.7</Version><SeriesInstanceUid>{uid}</SeriesInstanceUid>"
        f"<StudyInstanceUID>1.2.3</StudyInstanceUID></ResponseHeader>{sessions}</LidcReadMessage>",
        encoding="utf-8",
    )
    return path
