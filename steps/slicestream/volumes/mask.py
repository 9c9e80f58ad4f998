"""Which voxels are nodule: a reference drawn by readers, or candidates found by a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicestream.errors import ArtefactError
from slicestream.volumes.artefact import read_artefact, write_artefact
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.volume import SeriesId, Volume, id_header

FORMS = ("outline", "sphere", "point")


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One labelled object: its label in the mask (1, 2, …), its score in [0, 1], its number of voxels."""

    label: int
    score: float
    voxels: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceNodule:
    """What is known of an annotated nodule beside its voxels.

    Attributes
    ----------
    label : its value in the labels; 0 for one that has a place but no voxels
    form : "outline", "sphere" (made of a centre and a diameter: no outline) or "point"
    readers : how many readers drew it
    ratings : by name, the mean over the readers
    index : its place (slice, row, column) as a fractional index, of a nodule without voxels
    """

    label: int
    form: str = "outline"
    readers: int = 1
    ratings: Mapping[str, float] = field(default_factory=dict)
    index: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.form not in FORMS or self.readers < 1 or self.label < 0:
            raise ValueError(f"nodule {self.label}: form '{self.form[:20]}', {self.readers} readers")
        if (self.label == 0) != (self.index is not None) or not np.isfinite(self.index or ()).all():
            raise ValueError(f"nodule {self.label}: place {self.index}")
        for name, value in self.ratings.items():
            # a plain word: nothing that a source wrote by hand goes on
            if not (name.isascii() and name.isidentifier() and len(name) <= 32 and math.isfinite(value)):
                raise ValueError(f"nodule {self.label}: rating '{name[:32]}' {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mask:
    """Labels uint16, (slice, row, column), 0 = background; `kind`: "mask" (by a model) or "reference" (by readers).

    `volume_hash` and `model_hash` say what it was made from; a reference has no model. `settings` are those of the
    prediction (threshold, lung mask, …). `nodules` say more of a reference's; older references have none.
    """

    kind: str
    id: SeriesId
    labels: NDArray[np.uint16]
    geometry: Geometry
    volume_hash: str
    model_hash: str = ""
    candidates: tuple[Candidate, ...] = ()
    nodules: tuple[ReferenceNodule, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    content_hash: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("mask", "reference"):
            raise ValueError(f"kind '{self.kind}'")
        if self.labels.dtype != np.uint16 or self.labels.shape != self.geometry.shape:
            raise ValueError(
                f"labels {self.labels.dtype} {self.labels.shape} do not fit geometry {self.geometry.shape}"
            )
        labelled = [nodule.label for nodule in self.nodules if nodule.label]
        if self.nodules and sorted(labelled) != sorted(candidate.label for candidate in self.candidates):
            raise ValueError(f"nodules {labelled[:5]}… do not fit the {len(self.candidates)} labels")


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
    if mask.kind == "reference":
        header["nodules"] = [asdict(nodule) for nodule in mask.nodules]
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
            nodules=tuple(_nodule(entry) for entry in header.get("nodules", ())),
            settings=dict(header["settings"]),
            content_hash=artefact.content_hash,
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ArtefactError(f"{path}: not a usable {kind} ({error}). Make it again.") from error


def check_same_volume(path: Path, mask: Mask, volume: Volume) -> None:
    """Raise ArtefactError where `mask` (read from `path`) was not made from `volume`."""
    if mask.id != volume.id or mask.volume_hash != volume.content_hash:
        raise ArtefactError(
            f"{path}: made from volume {mask.id} ({mask.volume_hash[:12]}…), but was given with volume {volume.id} "
            f"({volume.content_hash[:12]}…); files were swapped. Give each {mask.kind} with its own volume."
        )


def _nodule(entry: Mapping[str, Any]) -> ReferenceNodule:
    index = entry["index"]
    if index is not None:
        k, row, column = (float(n) for n in index)
        index = (k, row, column)
    return ReferenceNodule(
        label=int(entry["label"]),
        form=str(entry["form"]),
        readers=int(entry["readers"]),
        ratings={str(name): float(value) for name, value in entry["ratings"].items()},
        index=index,
    )
