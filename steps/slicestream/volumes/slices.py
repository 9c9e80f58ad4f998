"""Training slices: the few images of each series that training uses, many series in one file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
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
    beside, around : where neighbours were packed too: int16 (slice, row, column), those that are not among the chosen;
        int64 (chosen slice, 2 * context + 1), each slice's neighbours from the lowest to the highest and itself in the
        middle, as places in `hu` followed by `beside`
    """

    id: SeriesId
    hu: NDArray[np.int16]
    nodule: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    beside: NDArray[np.int16] | None = None
    around: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.hu.shape != self.nodule.shape or self.hu.ndim != 3:
            raise ValueError(f"images {self.hu.shape} and masks {self.nodule.shape} differ")
        if self.beside is None or self.around is None:
            if self.beside is not self.around:
                raise ValueError("neighbours without their places, or the other way round")
            return
        many = len(self.hu) + len(self.beside)
        fits = self.beside.shape[1:] == self.hu.shape[1:] and self.around.shape == (len(self.hu), 2 * self.context + 1)
        if not fits or ((self.around < 0) | (self.around >= many)).any():
            raise ValueError(f"neighbours {self.beside.shape}, places {self.around.shape} do not fit {self.hu.shape}")

    @property
    def context(self) -> int:
        """How many neighbours on each side were packed."""
        return 0 if self.around is None else self.around.shape[-1] // 2


def with_neighbours(chosen: NDArray[np.intp], slices: int, context: int) -> NDArray[np.intp]:
    """Return (chosen slice, 2 * context + 1): each and its neighbours in a series of so many slices, lowest first.

    Where the series ends, its last slice stands for those beyond.
    """
    return np.asarray(np.clip(chosen[:, None] + np.arange(-context, context + 1), 0, slices - 1))


def choose_slices(whole: SliceStack, chosen: NDArray[np.intp], *, context: int = 0) -> SliceStack:
    """Return slices `chosen` (ascending) of a whole series, and `context` neighbours of each on either side."""
    part = replace(whole, hu=whole.hu[chosen], nodule=whole.nodule[chosen])
    if not context:
        return part
    wanted = with_neighbours(chosen, len(whole.hu), context)
    more = np.setdiff1d(wanted, chosen)
    packed = np.concatenate((chosen, more))
    order = np.argsort(packed)
    around = order[np.searchsorted(packed, wanted, sorter=order)].astype(np.int64)
    return replace(part, beside=whole.hu[more], around=around)


def write_slices(path: Path, stacks: Iterable[SliceStack]) -> str:
    """Write a `.slices` file, stacks in order of their pseudonyms; return its content hash. Raises OutputError."""
    ordered = sorted(stacks, key=lambda stack: str(stack.id))
    arrays = {f"{s.id}-hu": s.hu for s in ordered} | {f"{s.id}-nodule": s.nodule for s in ordered}
    entries = []
    for stack in ordered:
        entries.append({**id_header(stack.id), "spacing_mm": list(stack.spacing_mm)})
        if stack.beside is not None and stack.around is not None:
            entries[-1]["around"] = stack.around.tolist()
            arrays[f"{stack.id}-beside"] = stack.beside
    return write_artefact(path, "slices", {"stacks": entries}, arrays)


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
                    beside=artefact.arrays.get(f"{series}-beside"),
                    around=np.array(entry["around"], np.int64) if "around" in entry else None,
                )
            )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{path}: not usable training slices ({error}). Make them again.") from error
    return stacks
