"""Stored values to Hounsfield units."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array

from slicestream.dicom.files import needed, one_line, optional, text_of, whole
from slicestream.errors import SeriesError
from slicestream.volumes.volume import AIR_HU

_HIGHEST_HU = 32767


def hounsfield(image: Dataset, path: Path) -> NDArray[np.int16]:
    """Return whole HU, int16 (row, column); padding and what is below -1024 HU becomes -1024.

    Padding is PixelPaddingValue up to PixelPaddingRangeLimit, in stored values (PS3.3 C.7.5.1.1.2); HU = stored value
    × RescaleSlope + RescaleIntercept (C.11.1.1.2). Raises SeriesError, StudyError.
    """
    slope, intercept = (_number(image, name, path) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0:
        raise SeriesError(f"{path}: RescaleSlope 0; need another. Leave the series out.")
    unit = text_of(image, "RescaleType", path)
    if unit.upper() not in ("", "HU", "US"):
        raise SeriesError(f"{path}: RescaleType {unit}; need HU. Leave the series out, it is no plain CT.")
    raw = _decoded(image, path)
    stored = _within_bits(raw, image, path)
    hu = np.rint(stored * np.float64(slope) + intercept).clip(AIR_HU, _HIGHEST_HU).astype(np.int16)
    for values in (raw, stored):
        hu[_padded(values, image, path)] = AIR_HU
    return hu


def check_plain_grey(image: Dataset, path: Path) -> None:
    """Raise SeriesError where the pixels are not one plane of at most 16-bit grey values."""
    found = {
        name: optional(image, name, path) for name in ("SamplesPerPixel", "BitsAllocated", "PhotometricInterpretation")
    }
    frames = whole(image, "NumberOfFrames", path) if "NumberOfFrames" in image else 1
    if (
        found["SamplesPerPixel"] != 1
        or found["BitsAllocated"] not in (8, 16)
        or found["PhotometricInterpretation"] != "MONOCHROME2"
        or frames != 1
    ):
        raise SeriesError(
            f"{path}: {found['SamplesPerPixel']} samples of {found['BitsAllocated']} bits, "
            f"{found['PhotometricInterpretation']}, {frames} frames; need one frame of 8 or 16 bit MONOCHROME2. "
            "Leave the series out."
        )


def _decoded(image: Dataset, path: Path) -> NDArray[np.integer]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # unused bits are ours to remove (pydicom knows no HighBit); the function caches nothing in the header
            pixels: NDArray[np.integer] = pixel_array(image, correct_unused_bits=False)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # each codec fails in its own way on damaged data, one by a panic in Rust
        reason = one_line(str(error).split(" - ")[0])
        raise SeriesError(
            f"{path}: pixels cannot be decoded ({reason}); truncated or damaged. Fetch it again."
        ) from error
    if pixels.shape != (image.Rows, image.Columns):
        raise SeriesError(f"{path}: pixels {pixels.shape}, header {image.Rows} x {image.Columns}. Fetch it again.")
    return pixels


def _within_bits(raw: NDArray[np.integer], image: Dataset, path: Path) -> NDArray[np.int32]:
    """Return values of the stored bits only: older scanners keep overlays in the bits above."""
    allocated, stored, high = (whole(image, n, path) for n in ("BitsAllocated", "BitsStored", "HighBit"))
    if not 0 < stored <= allocated or not stored - 1 <= high < allocated:
        raise SeriesError(
            f"{path}: {stored} bits stored, high bit {high}, {allocated} allocated. Leave the series out."
        )
    compressed = image.file_meta.TransferSyntaxUID.is_encapsulated
    shift = 0 if compressed else high + 1 - stored
    bits = (raw.astype(np.int32) >> shift) & ((1 << stored) - 1)
    if image.PixelRepresentation == 1:
        bits = bits - ((bits >> (stored - 1)) << stored)
    return np.asarray(bits, np.int32)


def _padded(values: NDArray[np.integer], image: Dataset, path: Path) -> NDArray[np.bool_]:
    padding = optional(image, "PixelPaddingValue", path)
    if not isinstance(padding, int):
        return np.zeros(values.shape, np.bool_)
    limit = optional(image, "PixelPaddingRangeLimit", path)
    ends = [_as_stored(n, image) for n in (padding, limit if isinstance(limit, int) else padding)]
    return np.asarray((values >= min(ends)) & (values <= max(ends)), dtype=np.bool_)


def _as_stored(value: int, image: Dataset) -> int:
    # a header may give -2000 as 63536, or the other way round
    allocated = int(image.BitsAllocated)
    value %= 1 << allocated
    return value - (1 << allocated) if image.PixelRepresentation == 1 and value >> (allocated - 1) else value


def _number(image: Dataset, name: str, path: Path) -> float:
    try:
        number = float(needed(image, name, path))
    except (TypeError, ValueError) as error:
        raise SeriesError(f"{path}: {name} is no number. Leave the series out.") from error
    if not np.isfinite(number):
        raise SeriesError(f"{path}: {name} {number}; need a finite number. Leave the series out.")
    return number
