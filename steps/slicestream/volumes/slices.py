"""Training slices: the few images of each series that training uses, many series in one file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicestream.errors import ArtefactError
from slicestream.volumes.artefact import read_artefact, write_artefact
from slicestream.volumes.volume import SeriesId, id_header


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceStack:
    """Chosen slices of one series.

    Attributes
    ----------
    hu : int16, (slice, row, column)
    nodule : uint8, same shape, 1 = nodule
    spacing_mm : of the volume, along slice, row, column
    numbers : which of the volume's slices, from 0; none: neighbours, as in files of versions that did not say
    """

    id: SeriesId
    hu: NDArray[np.int16]
    nodule: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    numbers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.hu.shape != self.nodule.shape or self.hu.ndim != 3:
            raise ValueError(f"images {self.hu.shape} and masks {self.nodule.shape} differ")
        if self.numbers and (len(self.numbers) != len(self.hu) or min(np.diff(self.numbers), default=1) < 1):
            raise ValueError(f"slice numbers {self.numbers[:5]}… do not fit {len(self.hu)} images, or do not ascend")

    @property
    def slices_mm(self) -> NDArray[np.float64]:
        """Return where each slice lies along the slice axis, from the volume's first."""
        return np.asarray(self.numbers or np.arange(len(self.hu)), np.float64) * self.spacing_mm[0]


def write_slices(path: Path, stacks: Iterable[SliceStack]) -> str:
    """Write a `.slices` file, stacks in order of their pseudonyms; return its content hash. Raises OutputError."""
    ordered = sorted(stacks, key=lambda stack: str(stack.id))
    header = {
        "stacks": [{**id_header(s.id), "spacing_mm": list(s.spacing_mm), "numbers": list(s.numbers)} for s in ordered]
    }
    arrays = {f"{s.id}-hu": s.hu for s in ordered} | {f"{s.id}-nodule": s.nodule for s in ordered}
    return write_artefact(path, "slices", header, arrays)


def read_slices(path: Path) -> list[SliceStack]:
    """Read and check. Raises ArtefactError."""
    artefact = read_artefact(path, "slices")
    try:
        stacks = []
        for entry in artefact.header["stacks"]:
            series = SeriesId(patient=entry["patient"], series=entry["series"])
            z, y, x = (float(n) for n in entry["spacing_mm"])
            stacks.append(
                SliceStack(
                    id=series,
                    hu=artefact.arrays[f"{series}-hu"],
                    nodule=artefact.arrays[f"{series}-nodule"],
                    spacing_mm=(z, y, x),
                    numbers=tuple(int(number) for number in entry.get("numbers", ())),
                )
            )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{path}: not usable training slices ({error}). Make them again.") from error
    return stacks
