"""Write a synthetic scan as CT Image Storage, each with the habits of one kind of scanner."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

IMPLEMENTATION_UID = UID("2.25.309862385317171717171717171717171717171")


@dataclass(frozen=True, kw_only=True, slots=True)
class Habit:
    """How one maker's scanners store HU: stored value = (HU - intercept) / slope.

    `padding` is the stored value outside the round field of view (None: the scanner fills the square).
    """

    model: str
    syntax: UID
    signed: bool
    bits_stored: int
    intercept: float
    slope: float = 1.0
    padding: int | None = None
    padding_limit: int | None = None
    head_first_numbers: bool = False


HABITS = (
    Habit(
        model="Round field",
        syntax=ExplicitVRLittleEndian,
        signed=True,
        bits_stored=16,
        intercept=-1024,
        padding=-2000,
    ),
    Habit(
        model="Twelve bits",
        syntax=RLELossless,
        signed=False,
        bits_stored=12,
        intercept=-1024,
        head_first_numbers=True,
    ),
    Habit(model="Square field", syntax=JPEGLSLossless, signed=False, bits_stored=12, intercept=-1000),
    Habit(
        model="Half units",
        syntax=DeflatedExplicitVRLittleEndian,
        signed=True,
        bits_stored=16,
        intercept=0,
        slope=0.5,
        padding=-8192,
        padding_limit=-6000,
    ),
    Habit(
        model="Plain",
        syntax=ImplicitVRLittleEndian,
        signed=True,
        bits_stored=16,
        intercept=0,
        head_first_numbers=True,
    ),
    Habit(model="Wavelet", syntax=JPEG2000Lossless, signed=False, bits_stored=16, intercept=-8192),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exam:
    """What a header says of one synthetic study, which holds one series."""

    seed: int
    patient: int
    exam: int
    origin_mm: tuple[float, float, float]
    pixel_mm: float
    slice_mm: float
    habit: Habit

    @property
    def patient_id(self) -> str:
        """The PatientID."""
        return f"PHANTOM-{self.patient:04d}"

    def uid(self, kind: str, *numbers: int) -> UID:
        """Return a UID that depends on the seed and these names only (2.25 form, PS3.5 B.2)."""
        names = "/".join(map(str, ("slicestream phantom", self.seed, self.patient, kind, *numbers)))
        return UID(f"2.25.{int.from_bytes(hashlib.sha256(names.encode()).digest()[:16], 'big')}")

    @property
    def series_uid(self) -> UID:
        """The SeriesInstanceUID."""
        return self.uid("series", self.exam)


def write_exam(paths: Sequence[Path], exam: Exam, hu: NDArray[np.int16]) -> None:
    """Write slice k of `hu` (slice, row, column) to `paths[k]`; slice 0 has the lowest z."""
    stored = _stored(hu, exam.habit)
    for index, path in enumerate(paths):
        image = _image_of(exam, index, stored[index], len(hu))
        if exam.habit.syntax.is_compressed and not exam.habit.syntax.is_deflated:
            image.compress(exam.habit.syntax, generate_instance_uid=False)
        image.save_as(path, enforce_file_format=True)


def _stored(hu: NDArray[np.int16], habit: Habit) -> NDArray[np.integer]:
    """Return stored values int16 or uint16, clipped to the bits, padded outside the round field of view."""
    low, high = (
        (-(2 ** (habit.bits_stored - 1)), 2 ** (habit.bits_stored - 1)) if habit.signed else (0, 2**habit.bits_stored)
    )
    raw = np.clip(np.rint((hu - habit.intercept) / habit.slope), low, high - 1)
    if habit.padding is not None:
        rows, columns = hu.shape[1:]
        y, x = np.ogrid[:rows, :columns]
        outside = np.hypot(y - (rows - 1) / 2, x - (columns - 1) / 2) > min(rows, columns) / 2
        raw[:, outside] = habit.padding
    stored: NDArray[np.integer] = raw.astype(np.int16 if habit.signed else np.uint16)
    return stored


def _image_of(exam: Exam, index: int, pixels: NDArray[np.integer], count: int) -> Dataset:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    compressed = exam.habit.syntax.is_compressed and not exam.habit.syntax.is_deflated
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if compressed else exam.habit.syntax
    image.file_meta.MediaStorageSOPClassUID = CTImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = exam.uid("instance", exam.exam, index)
    image.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    _describe_study(image, exam)
    _describe_place(image, exam, index, count)
    _describe_pixels(image, exam, pixels)
    return image


def _describe_study(image: Dataset, exam: Exam) -> None:
    image.SpecificCharacterSet = "ISO_IR 192"
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = f"2020{exam.exam:02d}01"
    image.StudyTime = image.SeriesTime = image.AcquisitionTime = image.ContentTime = "120000"
    image.AccessionNumber = f"PH{exam.patient:04d}{exam.exam}"
    image.Modality = "CT"
    image.Manufacturer = "SliceStream phantom"
    image.ManufacturerModelName = exam.habit.model
    image.ReferringPhysicianName = ""
    image.StudyDescription = "Synthetic chest CT"
    image.SeriesDescription = f"Synthetic chest {exam.slice_mm} mm"
    image.PatientName = f"Phantom^{exam.patient:04d}"
    image.PatientID = exam.patient_id
    image.PatientBirthDate = "19500101"
    image.PatientSex = "O"
    image.PatientAge = "070Y"
    image.BodyPartExamined = "CHEST"
    image.KVP = "120"
    image.DeviceSerialNumber = "0"
    image.SoftwareVersions = "1"
    image.PatientPosition = "HFS"
    image.StudyInstanceUID = exam.uid("study", exam.exam)
    image.SeriesInstanceUID = exam.series_uid
    image.StudyID = str(exam.exam)
    image.SeriesNumber = 1
    image.AcquisitionNumber = 1
    image.FrameOfReferenceUID = exam.uid("frame of reference", exam.exam)
    image.PositionReferenceIndicator = ""


def _describe_place(image: Dataset, exam: Exam, index: int, count: int) -> None:
    x, y, z = exam.origin_mm
    image.SliceThickness = f"{exam.slice_mm:g}"
    image.InstanceNumber = count - index if exam.habit.head_first_numbers else index + 1
    image.ImagePositionPatient = [f"{x:.4f}", f"{y:.4f}", f"{z + index * exam.slice_mm:.4f}"]
    image.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    image.SliceLocation = f"{z + index * exam.slice_mm:.4f}"
    image.PixelSpacing = [f"{exam.pixel_mm:g}", f"{exam.pixel_mm:g}"]


def _describe_pixels(image: Dataset, exam: Exam, pixels: NDArray[np.integer]) -> None:
    habit = exam.habit
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows, image.Columns = pixels.shape
    image.BitsAllocated = 16
    image.BitsStored = habit.bits_stored
    image.HighBit = habit.bits_stored - 1
    image.PixelRepresentation = int(habit.signed)
    if habit.padding is not None:
        image.PixelPaddingValue = habit.padding
    if habit.padding_limit is not None:
        image.PixelPaddingRangeLimit = habit.padding_limit
    image.WindowCenter, image.WindowWidth = "-500", "1600"
    image.RescaleIntercept, image.RescaleSlope = f"{habit.intercept:g}", f"{habit.slope:g}"
    image.RescaleType = "HU"
    image.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
