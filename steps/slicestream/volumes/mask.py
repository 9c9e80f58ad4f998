"""Which voxels are nodule: a reference drawn by readers, or candidates found by a model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicestream.errors import ArtefactError
from slicestream.volumes.artefact import read_artefact, write_artefact
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.volume import SeriesId, Volume, id_header


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One labelled object: its label in the mask (1, 2, …), its score in [0, 1], its number of voxels."""

    label: int
    score: float
    voxels: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Mask:
    """Labels uint16, (slice, row, column), 0 = background; `kind`: "mask" (by a model) or "reference" (by readers).

    `volume_hash` and `model_hash` say what it was made from; a reference has no model. `settings` are those of the
    prediction (threshold, lung mask, …).
    """

    kind: str
    id: SeriesId
    labels: NDArray[np.uint16]
    geometry: Geometry
    volume_hash: str
    model_hash: str = ""
    candidates: tuple[Candidate, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    content_hash: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("mask", "reference"):
            raise ValueError(f"kind '{self.kind}'")
        if self.labels.dtype != np.uint16 or self.labels.shape != self.geometry.shape:
            raise ValueError(
                f"labels {self.labels.dtype} {self.labels.shape} do not fit geometry {self.geometry.shape}"
            )


def write_mask(path: Path, mask: Mask) -> str:
    """Write `<patient>-<series>.mask` or `.reference`; return its content hash. Raises OutputError."""
    header = {
        **id_header(mask.id),
        **mask.geometry.to_header(),
        "volume_hash": mask.volume_hash,
        "model_hash": mask.model_hash,
        "candidates": [asdict(candidate) for candidate in mask.candidates],
        "settings": mask.settings,
    }
    return write_artefact(path, mask.kind, header, {"labels": mask.labels})


def read_mask(path: Path, kind: str) -> Mask:
    """Read and check a "mask" or a "reference". Raises ArtefactError."""
    artefact = read_artefact(path, kind)
    header = artefact.header
    try:
        return Mask(
            kind=kind,
            id=SeriesId(patient=header["patient"], series=header["series"]),
            labels=artefact.arrays["labels"],
            geometry=Geometry.from_header(header),
            volume_hash=str(header["volume_hash"]),
            model_hash=str(header["model_hash"]),
            candidates=tuple(
                Candidate(label=int(c["label"]), score=float(c["score"]), voxels=int(c["voxels"]))
                for c in header["candidates"]
            ),
            settings=dict(header["settings"]),
            content_hash=artefact.content_hash,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{path}: not a usable {kind} ({error}). Make it again.") from error


def check_same_volume(path: Path, mask: Mask, volume: Volume) -> None:
    """Raise ArtefactError where `mask` (read from `path`) was not made from `volume`."""
    if mask.id != volume.id or mask.volume_hash != volume.content_hash:
        raise ArtefactError(
            f"{path}: made from volume {mask.id} ({mask.volume_hash[:12]}…), but was given with volume {volume.id} "
            f"({volume.content_hash[:12]}…); files were swapped. Give each {mask.kind} with its own volume."
        )
