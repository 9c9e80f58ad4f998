"""What the network that reduces false positives learns from: what the first stage takes for nodules, rightly or not.

N example. All is found on the slices that training has: nothing else of a scan is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from slicestream.learning.cohort import Side
from slicestream.learning.device import Device
from slicestream.learning.recipe import Recipe
from slicestream.learning.validation import probability_of
from slicestream.volumes.candidates import CandidateRule, find_candidates, middles
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.lungs import find_lungs
from slicestream.volumes.metrics import match
from slicestream.volumes.slices import SliceStack

_Row = tuple[int, NDArray[np.float64], bool, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """Places in stacks.

    Attributes
    ----------
    stack : int64 (N,)
    place : float64 (N, 3), fractional index of slice, row, column
    nodule : bool (N,)
    score : float64 (N,), the first stage's; 0 for a nodule that it does not find
    """

    stack: NDArray[np.int64]
    place: NDArray[np.float64]
    nodule: NDArray[np.bool_]
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.stack)

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which are candidates of the first stage, (N,)."""
        return self.score > 0


def find_examples(
    network: nn.Module, side: Side, *, recipe: Recipe, device: Device, threshold: float, flips: bool
) -> Examples:
    """Return the candidates at `threshold` that hit a nodule or lie off all of them, and the nodules that none hits."""
    slices = side.slices.to(device.torch_device)
    rows: list[_Row] = []
    first = 0
    for number, stack in enumerate(side.stacks):
        chosen = torch.arange(first, first + len(stack.hu), device=slices.hu.device)
        probability = probability_of(network, slices, chosen, recipe=recipe, device=device, flips=flips)
        for part in stack.runs():
            rows += _judged(number, stack, probability, part=part, threshold=threshold)
        first += len(stack.hu)
    return Examples(
        stack=np.array([row[0] for row in rows], np.int64),
        place=np.array([row[1] for row in rows], np.float64).reshape(-1, 3),
        nodule=np.array([row[2] for row in rows], np.bool_),
        score=np.array([row[3] for row in rows], np.float64),
    )


def _judged(
    number: int, stack: SliceStack, probability: NDArray[np.uint16], *, part: slice, threshold: float
) -> list[_Row]:
    """Return an example per candidate, but for those that touch a nodule and do not hit it: they teach neither."""
    hu = stack.hu[part]
    geometry = Geometry(shape=(len(hu), *hu.shape[1:]), spacing_mm=stack.spacing_mm)
    found = find_candidates(
        probability[part], geometry, rule=CandidateRule(threshold=threshold), lungs=find_lungs(hu, geometry)
    )
    drawn = cc3d.connected_components(stack.nodule[part] > 0, connectivity=26).astype(np.uint16)
    matched = match(found.labels, drawn)
    rows: list[_Row] = []
    offset = np.array([part.start, 0, 0], np.float64)
    for candidate, middle in zip(found.candidates, middles(found.labels)[1:], strict=True):
        hits = matched.reference_of(candidate.label) > 0
        touches = matched.iou[:, matched.candidate_labels.index(candidate.label)].any()
        if hits or not touches:
            rows.append((number, offset + middle, hits, candidate.score))
    for label, middle in zip(matched.reference_labels, middles(drawn)[1:], strict=True):
        if not matched.candidates_of(label):
            rows.append((number, offset + middle, True, 0.0))
    return rows
