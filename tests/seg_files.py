"""DICOM SEG files as another program writes them (highdicom), made for one test each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from highdicom.seg import Segmentation, SegmentDescription
from pydicom import Dataset
from pydicom.sr.coding import Code

import places
from slicestream.dicom.annotations.drawing import SeriesPlace

ALTERED = Code("49755003", "SCT", "Morphologically Altered Structure")
NODULE, LUNG = Code("27925004", "SCT", "Nodule"), Code("39607008", "SCT", "Lung")
LABELLED = ("first", "second", "third")


def description(number: int, label: str, kind: Code = NODULE) -> SegmentDescription:
    return SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=ALTERED,
        segmented_property_type=kind,
        algorithm_type="MANUAL",
    )


def written(
    path: Path,
    where: SeriesPlace,
    pixels: np.ndarray,
    *,
    form: str = "BINARY",
    kinds: tuple[Code, ...] = (NODULE, NODULE, NODULE),
    **options: object,
) -> Path:
    """Write a SEG on `where` with highdicom, as another program would."""
    segmentation = Segmentation(
        source_images=places.headers(where),
        pixel_array=pixels,
        segmentation_type=form,
        segment_descriptions=[description(n, LABELLED[n - 1], kind) for n, kind in enumerate(kinds, start=1)],
        series_instance_uid="1.2.9",
        series_number=1,
        sop_instance_uid="1.2.10",
        instance_number=1,
        manufacturer="Another",
        manufacturer_model_name="program",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    segmentation.save_as(path)
    return path


def edited(path: Path, change: Callable[[Dataset], object]) -> Path:
    """Change a file in place."""
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    return path


def frames(dataset: Dataset) -> list[Dataset]:
    """Return the items that describe the frames."""
    return list(dataset.PerFrameFunctionalGroupsSequence)
