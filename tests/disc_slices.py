"""Slices whose answers are known: bright discs on lung-like noise."""

from pathlib import Path

import numpy as np

from slicestream.volumes.slices import SliceStack, write_slices
from slicestream.volumes.volume import SeriesId


def disc_stack(patient: int, *, slices: int = 6, shape: tuple[int, int] = (32, 32), empty: bool = False) -> SliceStack:
    """One series of a patient: a disc of 0 HU and 4 to 6 px radius per slice on -800 HU ± 30."""
    generator = np.random.default_rng(patient)
    row, column = np.indices(shape)
    hu = generator.normal(-800, 30, (slices, *shape))
    nodule = np.zeros(hu.shape, np.uint8)
    for image, mask in zip(hu, nodule, strict=True):
        radius = generator.uniform(4, 6)
        middle = [generator.uniform(radius, size - radius) for size in shape]
        disc = (row - middle[0]) ** 2 + (column - middle[1]) ** 2 <= radius**2
        if not empty:
            image[disc] = 0
            mask[disc] = 1
    series = SeriesId(patient=f"{patient:016x}", series=f"{patient + 1000:016x}")
    return SliceStack.of_series(series, hu=hu.astype(np.int16), nodule=nodule, spacing_mm=(2.5, 0.7, 0.8))


def write_sides(folder: Path, *, slices: int = 6) -> tuple[Path, Path]:
    """Write a training shard (patients 1 to 4) and a validation shard (patient 5); return their paths."""
    training, validation = folder / "training-000.slices", folder / "validation-000.slices"
    write_slices(training, [disc_stack(patient, slices=slices) for patient in (1, 2, 3, 4)])
    write_slices(validation, [disc_stack(5, slices=slices)])
    return training, validation
