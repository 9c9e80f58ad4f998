"""Small CT files, made for one test each: a series, and a cohort in the UniToChest layout."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

ROOT = "1.2.826.0.1.3680043.10.1"  # UIDs of tests only
SIZE = 16
STEP_MM = 2.5


def ct_slice(path: Path, *, z_mm: float, patient: str = "P1", series: int = 1, **header: Any) -> Path:
    """Write one CT slice of -500 HU (stored 524); `header` overrides elements by keyword, None removes one."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = CTImageStorage
    instance = f"{ROOT}.{series}.{round(z_mm * 1000) + 10**7}"
    elements: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": instance,
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "PatientID": patient,
        "PatientName": "Test^Patient",
        "StudyInstanceUID": f"{ROOT}.9",
        "SeriesInstanceUID": f"{ROOT}.{series}",
        "FrameOfReferenceUID": f"{ROOT}.8",
        "SliceThickness": f"{STEP_MM}",
        "ImagePositionPatient": ["0", "0", f"{z_mm:g}"],
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
        "PixelSpacing": ["0.7", "0.7"],
        "Rows": SIZE,
        "Columns": SIZE,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "RescaleIntercept": "-1024",
        "RescaleSlope": "1",
        "PixelData": np.full((SIZE, SIZE), 524, "<u2").tobytes(),
    }
    for name, value in (elements | header).items():
        if value is not None:
            setattr(image, name, value)
    image.file_meta.MediaStorageSOPInstanceUID = instance
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)
    return path


def ct_series(folder: Path, *, slices: int = 4, **header: Any) -> list[Path]:
    """Write `slices` CT slices 2.5 mm apart, k.dcm at z = 2.5 k mm."""
    return [ct_slice(folder / f"{k}.dcm", z_mm=STEP_MM * k, **header) for k in range(slices)]


def enhanced_ct(path: Path, z_mm: Sequence[float], **header: Any) -> Path:
    """Write one Enhanced CT: frame k of stored value 100 (k + 1) at z_mm[k], what `header` overrides at the top level.

    The rescale of frame k is its own: slope 1, intercept -1000 - k. So its HU is 99 k - 900.
    """
    image = dcmread(ct_slice(path, z_mm=0))
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(image, name)
    for name in ("RescaleIntercept", "RescaleSlope"):
        delattr(image, name)
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    image.NumberOfFrames = len(z_mm)
    image.SharedFunctionalGroupsSequence = [
        _item(
            PlaneOrientationSequence=[_item(ImageOrientationPatient=["1", "0", "0", "0", "1", "0"])],
            PixelMeasuresSequence=[_item(PixelSpacing=["0.7", "0.7"], SliceThickness="2.5")],
            CTReconstructionSequence=[_item(ConvolutionKernel="LUNG")],
        )
    ]
    image.PerFrameFunctionalGroupsSequence = [
        _item(
            PlanePositionSequence=[_item(ImagePositionPatient=["0", "0", f"{z:g}"])],
            FrameContentSequence=[_item(FrameAcquisitionNumber=1, TemporalPositionIndex=1)],
            PixelValueTransformationSequence=[
                _item(RescaleIntercept=str(-1000 - k), RescaleSlope="1", RescaleType="HU")
            ],
        )
        for k, z in enumerate(z_mm)
    ]
    image.PixelData = b"".join(np.full((SIZE, SIZE), 100 * (k + 1), "<u2").tobytes() for k in range(len(z_mm)))
    for name, value in header.items():
        setattr(image, name, value)
    image.save_as(path)
    return path


def _item(**elements: Any) -> Dataset:
    item = Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    return item


def change(path: Path, **header: Any) -> None:
    """Set elements of a written file; None removes one."""
    image = dcmread(path)
    for name, value in header.items():
        if value is None:
            delattr(image, name)
        else:
            setattr(image, name, value)
    image.save_as(path)


def unitochest(folder: Path, *, patients: int = 3, slices: int = 4, marked: int = 2) -> Path:
    """Write a cohort whose patients have one exam each, with a 4 x 4 pixel mask on the first `marked` slices."""
    rows = []
    for patient in range(1, patients + 1):
        place = f"patient_{patient:04d}/exam_1"
        (folder / "masks" / place).mkdir(parents=True)
        for k in range(slices):
            stem = f"{patient:04d}_1_{k + 1:04d}"
            image, mask = f"images/{place}/{stem}.dcm", f"masks/{place}/{stem}_mask.png"
            ct_slice(folder / image, z_mm=STEP_MM * k, patient=f"P{patient}", series=patient)
            if k < marked:
                write_mask_png(folder / mask, np.pad(np.full((4, 4), 255, np.uint8), 6))
            ids = {"patientID": f"{patient:04d}", "exam": 1, "slice": k + 1}
            rows.append({**ids, "image": image, "mask": mask if k < marked else ""})
    write_table(folder, rows)
    return folder


def write_mask_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write an 8-bit grey PNG."""
    Image.fromarray(pixels).save(path)


def write_table(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write dataset.csv."""
    with (folder / "dataset.csv").open("w", newline="", encoding="utf-8") as text:
        writer = csv.DictWriter(text, ["patientID", "exam", "slice", "image", "mask"])
        writer.writeheader()
        writer.writerows(rows)


def read_rows(folder: Path) -> list[dict[str, str]]:
    """Read dataset.csv."""
    with (folder / "dataset.csv").open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))
