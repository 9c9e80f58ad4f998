"""Nodules shown in the clear lung of a scan, for the second network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from disc_slices import disc_stack
from slicestream.learning.examples import Examples
from slicestream.learning.patch_set import PatchSampler, PatchSet
from slicestream.learning.recipe import Augmentation, Reduction
from slicestream.learning.scans import find_scans
from slicestream.volumes.slices import SliceStack
from slicestream.volumes.volume import SeriesId

LUNG_HU, DONOR_LUNG_HU = -920, -800  # of the scan, and of the nodules' own crops: discs of 0 HU


def scan() -> SliceStack:
    """Two slices of 160 × 160 pixels of 2 mm: a body of 40 HU with two lungs, and nothing in them."""
    hu = np.full((2, 160, 160), -1000, np.int16)
    row, column = np.indices((160, 160))
    hu[:, ((row - 80) / 60) ** 2 + ((column - 80) / 75) ** 2 < 1] = 40
    for middle in (48, 112):
        hu[:, ((row - 80) / 50) ** 2 + ((column - middle) / 28) ** 2 < 1] = LUNG_HU
    series = SeriesId(patient="f" * 16, series="e" * 16)
    return SliceStack.of_series(series, hu=hu, nodule=np.zeros(hu.shape, np.uint8), spacing_mm=(5.0, 2.0, 2.0))


def drawn(pasted: float) -> NDArray[np.float32]:
    """Return patches of nodules (N, S, K, D, H, W), none changed in brightness."""
    stacks = [disc_stack(1, shape=(64, 64)), scan()]
    one = Examples(
        stack=np.array([0]), place=np.array([[2.0, 32.0, 32.0]]), nodule=np.array([True]), score=np.array([0.9])
    )
    sampler = PatchSampler(
        patches=PatchSet.from_stacks(stacks),
        known=one,
        scans=find_scans(stacks, patch=64),
        shares=Reduction(pasted=pasted),
        augmentation=Augmentation(),
    )
    patches, nodule = sampler.draw(24, np.random.default_rng(0))
    return patches[nodule == 1]


def test_pasted_nodule_lies_in_the_scans_lung_and_keeps_its_contrast() -> None:
    brightest = []
    for patch in drawn(1.0)[:, 0]:
        hu, known = patch[0], patch[1] > 0
        lung = hu[known & (hu < -880)]
        assert len(lung) > 0.3 * known.sum()
        assert abs(np.median(lung) - LUNG_HU) < 10
        brightest.append(hu[:, 8:16, 8:16][known[:, 8:16, 8:16]].max())
    # as far over the scan's lung as the disc is over its own; near a wall the lung is brighter
    assert abs(np.median(brightest) - (LUNG_HU - DONOR_LUNG_HU)) < 60


def test_nodule_that_is_not_pasted_lies_in_its_own_crop() -> None:
    for patch in drawn(0.0)[:, 0]:
        hu, known = patch[0], patch[1] > 0
        assert np.median(hu[known & (hu < -600)]) > DONOR_LUNG_HU - 20
