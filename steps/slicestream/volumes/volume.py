"""A CT series without identity, and the window that a network sees it through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicestream.errors import ArtefactError
from slicestream.volumes.artefact import Sliced, read_artefact, read_header, write_artefact
from slicestream.volumes.geometry import Geometry

AIR_HU = -1024  # what padding becomes


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """HU shown as 0 to 1; the paper's lung window (centre -500, width 1600) is the default."""

    low_hu: float = -1300.0
    high_hu: float = 300.0

    def __post_init__(self) -> None:
        if not self.low_hu < self.high_hu:
            raise ValueError(f"window from {self.low_hu} to {self.high_hu} HU: low must be under high")

    def scale(self, hu: NDArray[Any]) -> NDArray[np.float32]:
        """Return float32 in [0, 1], any shape."""
        scaled = (hu.astype(np.float32) - np.float32(self.low_hu)) / np.float32(self.high_hu - self.low_hu)
        return np.clip(scaled, 0.0, 1.0, out=scaled)


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesId:
    """Pseudonyms of patient and series: 16 hex digits each, keyed hashes made on the laptop."""

    patient: str
    series: str

    def __post_init__(self) -> None:
        for value in (self.patient, self.series):
            if len(value) != 16 or not set(value) <= set("0123456789abcdef"):
                raise ValueError(f"pseudonym '{value[:20]}' is not 16 hex digits")

    def __str__(self) -> str:
        return f"{self.patient}-{self.series}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """HU int16, (slice, row, column), and what may be known of it outside."""

    id: SeriesId
    hu: NDArray[np.int16]
    geometry: Geometry
    content_hash: str = ""

    def __post_init__(self) -> None:
        if self.hu.dtype != np.int16 or self.hu.shape != self.geometry.shape:
            raise ValueError(f"HU {self.hu.dtype} {self.hu.shape} does not fit geometry {self.geometry.shape}")


def id_header(series: SeriesId) -> dict[str, str]:
    """Return the JSON form of the pseudonyms."""
    return {"patient": series.patient, "series": series.series}


def write_volume(path: Path, volume: Volume) -> str:
    """Write `<patient>-<series>.volume`; return its content hash. Raises OutputError."""
    return write_voxels(path, volume.id, volume.geometry, volume.hu)


def write_voxels(path: Path, series: SeriesId, geometry: Geometry, hu: Sliced) -> str:
    """Write a volume whose HU may come slice by slice; return its content hash. Raises OutputError."""
    header = {**id_header(series), "units": "HU", **geometry.to_header()}
    return write_artefact(path, "volume", header, {"hu": hu})


def read_volume(path: Path) -> Volume:
    """Read and check. Raises ArtefactError."""
    artefact = read_artefact(path, "volume")
    try:
        return Volume(
            id=SeriesId(patient=artefact.header["patient"], series=artefact.header["series"]),
            hu=artefact.arrays["hu"],
            geometry=Geometry.from_header(artefact.header),
            content_hash=artefact.content_hash,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{path}: not a usable volume ({error}). Make it again with `slicestream preprocess`."
        ) from error


def by_series(paths: Sequence[Path], kind: str) -> dict[str, Path]:
    """Return path by '<patient>-<series>' as the files' headers say. Raises ArtefactError on a second of one series."""
    found: dict[str, Path] = {}
    for path in paths:
        header, _ = read_header(path, kind)
        series = f"{header.get('patient')}-{header.get('series')}"
        if series in found:
            raise ArtefactError(
                f"{path}: a second {kind} of series {series}, which was already given as {found[series]}; need one. "
                "Remove the other."
            )
        found[series] = path
    return found
