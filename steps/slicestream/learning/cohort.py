"""Training shards as one checked cohort: nobody twice, nobody on both sides."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slicestream.errors import ArtefactError, SplitError
from slicestream.learning.data import SliceSet
from slicestream.learning.scans import Scans, find_scans
from slicestream.volumes.artefact import read_header
from slicestream.volumes.slices import SliceStack, read_slices


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """The slices of one side, and what may be told of them.

    `stacks` are the same pixels by series, in the order of `slices`. `hashes` are the shards' content hashes by file
    name.
    """

    slices: SliceSet
    stacks: tuple[SliceStack, ...]
    hashes: dict[str, str]
    patients: frozenset[str]
    annotated: int
    spacing_mm: tuple[float, float]
    scans: Scans | None = None

    def summary(self) -> dict[str, int]:
        """Return the JSON form."""
        return {"patients": len(self.patients), "slices": len(self.slices), "annotated_slices": self.annotated}


def read_side(
    paths: Sequence[Path], *, side: str, multiple: int, context: int = 0, scan_patch: int | None = None
) -> Side:
    """Read the shards of one side ("training" or "validation"); look for whole scans where crops have `scan_patch` px.

    Raises
    ------
    ArtefactError
        A shard is damaged or missing, a series comes twice, a slice is smaller than `multiple` pixels, or fewer than
        `context` neighbours were packed.
    SplitError
        No slice has a nodule.
    """
    stacks: list[SliceStack] = []
    hashes: dict[str, str] = {}
    for path in paths:
        stacks += read_slices(path)
        hashes[path.name] = read_header(path, "slices")[1]
    stacks = [stack for stack in stacks if len(stack.hu)]
    _check(stacks, side=side, multiple=multiple, context=context)
    spacing = [stack.spacing_mm for stack in stacks for _ in range(int(stack.trained.sum()))]
    slices = SliceSet.from_stacks(stacks, context=context)
    return Side(
        slices=slices,
        stacks=tuple(slices.views(stacks)),
        hashes=hashes,
        patients=frozenset(stack.id.patient for stack in stacks),
        annotated=sum(int(stack.nodule[stack.trained].any(axis=(1, 2)).sum()) for stack in stacks),
        spacing_mm=(statistics.median(row for _, row, _ in spacing), statistics.median(col for _, _, col in spacing)),
        scans=None if scan_patch is None else find_scans(stacks, patch=scan_patch),
    )


def check_apart(training: Side, validation: Side) -> None:
    """Raise SplitError where a patient is on both sides."""
    both = sorted(training.patients & validation.patients)
    if both:
        raise SplitError(
            f"--training and --validation: {len(both)} patients on both sides (first: {both[0]}); "
            "need none. Give the shards of one `slicestream split`."
        )


def _check(stacks: Sequence[SliceStack], *, side: str, multiple: int, context: int) -> None:
    twice = [name for name, count in Counter(str(stack.id) for stack in stacks).items() if count > 1]
    if twice:
        raise ArtefactError(
            f"--{side}: series {twice[0]} comes more than once ({len(twice)} such series); "
            "need each once. Give every shard once."
        )
    small = next((stack for stack in stacks if min(stack.hu.shape[1:]) < multiple), None)
    if small is not None:
        rows, columns = small.hu.shape[1:]
        raise ArtefactError(
            f"--{side}: series {small.id} has slices of {rows}×{columns} pixels; this network needs {multiple} or "
            "more each way. Exclude the patient, or choose another --recipe."
        )
    lonely = next((stack for stack in stacks if stack.context < context), None)
    if lonely is not None:
        raise ArtefactError(
            f"--{side}: series {lonely.id} was packed with {lonely.context} neighbours on either side of a slice; this "
            f"recipe sees {context}. Run `slicestream preprocess --context {context}` and split again."
        )
    if not any(stack.nodule[stack.trained].any() for stack in stacks):
        raise SplitError(
            f"--{side}: no slice with a nodule in it; need at least one. Check the annotations of the cohort, "
            "or split it with other --fractions."
        )
