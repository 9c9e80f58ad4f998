"""Training slices: the few images of each series that training uses, many series in one file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from slicestream.errors import ArtefactError
from slicestream.volumes.artefact import read_artefact, write_artefact
from slicestream.volumes.volume import SeriesId, id_header


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceStack:
    """Slices of one series, ascending: those to train on, and those that are only seen beside them.

    Attributes
    ----------
    hu : int16, (slice, row, column)
    nodule : uint8, same shape, 1 = nodule
    spacing_mm : of the series, along slice, row, column
    numbers : int64 (slice,), which of the series' slices these are, from 0
    trained : bool (slice,), which of these to train on
    context : so many neighbours on either side of those are here, as far as the series goes
    """

    id: SeriesId
    hu: NDArray[np.int16]
    nodule: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    numbers: NDArray[np.int64]
    trained: NDArray[np.bool_]
    context: int = 0

    def __post_init__(self) -> None:
        if self.hu.shape != self.nodule.shape or self.hu.ndim != 3:
            raise ValueError(f"images {self.hu.shape} and masks {self.nodule.shape} differ")
        if not len(self.hu) == len(self.numbers) == len(self.trained) or (np.diff(self.numbers, prepend=-1) < 1).any():
            raise ValueError(f"slice numbers {self.numbers[:5]}… do not fit {len(self.hu)} images, or do not ascend")
        if self.context < 0:
            raise ValueError(f"{self.context} neighbours")

    @classmethod
    def of_series(
        cls,
        series: SeriesId,
        *,
        hu: NDArray[np.int16],
        nodule: NDArray[np.uint8],
        spacing_mm: tuple[float, float, float],
    ) -> Self:
        """Return a whole series, to train on every slice of it."""
        numbers, trained = np.arange(len(hu)), np.ones(len(hu), np.bool_)
        return cls(id=series, hu=hu, nodule=nodule, spacing_mm=spacing_mm, numbers=numbers, trained=trained)

    @property
    def slices_mm(self) -> NDArray[np.float64]:
        """Return where each slice lies along the slice axis, from the series' first."""
        return np.asarray(self.numbers * self.spacing_mm[0], np.float64)

    def part(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        """Return some of the slices; that neighbours are among them is no longer said."""
        names = ("hu", "nodule", "numbers", "trained")
        return replace(self, context=0, **{name: getattr(self, name)[which] for name in names})

    def runs(self) -> Iterator[slice]:
        """Yield the parts in which each slice is the next one's neighbour."""
        ends = np.flatnonzero(np.diff(self.numbers) > 1) + 1
        for first, end in pairwise((0, *ends.tolist(), len(self.numbers))):
            yield slice(first, end)

    def neighbours(self, context: int) -> NDArray[np.int64]:
        """Return where each slice and its neighbours are in the stack, lowest first: (slice, 2 * context + 1).

        Beyond an end of the series, and of what is here of it, the last slice stands for the next.
        """
        steps = np.arange(-context, context + 1)
        here = [np.clip(np.r_[run][:, None] + steps, run.start, run.stop - 1) for run in self.runs()]
        return np.concatenate(here).astype(np.int64)


def with_neighbours(chosen: NDArray[np.intp], slices: int, context: int) -> NDArray[np.intp]:
    """Return which of so many slices of a series are `chosen` or at most `context` from one that is, ascending."""
    near = chosen[:, None] + np.arange(-context, context + 1)
    return np.unique(np.clip(near, 0, slices - 1))


def choose_slices(series: SliceStack, chosen: NDArray[np.intp], *, context: int = 0) -> SliceStack:
    """Return the `chosen` slices of a whole series to train on, and `context` neighbours of each on either side."""
    packed = series.part(with_neighbours(chosen, len(series.hu), context))
    return replace(packed, trained=np.isin(packed.numbers, chosen), context=context)


def write_slices(path: Path, stacks: Iterable[SliceStack]) -> str:
    """Write a `.slices` file, stacks in order of their pseudonyms; return its content hash. Raises OutputError."""
    ordered = sorted(stacks, key=lambda stack: str(stack.id))
    entries = [
        {
            **id_header(stack.id),
            "spacing_mm": list(stack.spacing_mm),
            "numbers": stack.numbers.tolist(),
            "trained": stack.trained.tolist(),
            "context": stack.context,
        }
        for stack in ordered
    ]
    arrays = {f"{s.id}-hu": s.hu for s in ordered} | {f"{s.id}-nodule": s.nodule for s in ordered}
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
                    numbers=np.array(entry["numbers"], np.int64),
                    trained=np.array(entry["trained"], np.bool_),
                    context=int(entry["context"]),
                )
            )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{path}: not usable training slices ({error}). Make them again.") from error
    return stacks
