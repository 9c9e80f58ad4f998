"""Stored values to Hounsfield units."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian, RLELossless

from slicestream.dicom.decoder import Frame, shared_decoders
from slicestream.dicom.decoder_child import PLUGINS
from slicestream.dicom.files import needed, one_line, optional, text_of, whole
from slicestream.errors import SeriesError
from slicestream.volumes.volume import AIR_HU

_HIGHEST_HU = 32767
_ROWS = 16  # looked up at a time: numpy makes each index eight bytes, and so many fit the cache
_MOST_PIXELS = 1 << 24  # 4096 x 4096; CT has up to 2048 x 2048


def empty_volume(shape: tuple[int, ...], path: Path) -> NDArray[np.int16]:
    """Return room for the HU of a series. Raises SeriesError where there is too little memory for it."""
    try:
        return np.empty(shape, np.int16)
    except (MemoryError, ValueError) as error:
        size = " x ".join(str(n) for n in shape)
        raise SeriesError(f"{path}: its series of {size} voxels needs more memory. Leave the series out.") from error


def hounsfield(image: Dataset, path: Path, out: NDArray[np.int16] | None = None) -> NDArray[np.int16]:
    """Return whole HU, int16 (row, column), in `out` if given; padding and what is below -1024 HU becomes -1024.

    Padding is PixelPaddingValue up to PixelPaddingRangeLimit, in stored values (PS3.3 C.7.5.1.1.2); HU = stored value
    × RescaleSlope + RescaleIntercept (C.11.1.1.2). Compressed pixels are decoded in another process.
    Raises SeriesError, StudyError.
    """
    slope, intercept = (_number(image, name, path) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0:
        raise SeriesError(f"{path}: RescaleSlope 0; need another. Leave the series out.")
    unit = text_of(image, "RescaleType", path)
    if unit.upper() not in ("", "HU", "US"):
        raise SeriesError(f"{path}: RescaleType {one_line(unit)}; need HU. Leave the series out, it is no plain CT.")
    cells = _cells(image, path)
    raw = _decoded(image, cells, path)
    meaning = _Meaning(dtype=raw.dtype.str, cells=cells, slope=slope, intercept=intercept)
    # every value that a cell can hold is worked out once; a slice is then looked up, in range by its type
    table, index = _table(meaning), raw.view(f"u{raw.dtype.itemsize}")
    hu = np.empty(index.shape, np.int16) if out is None else out
    for row in range(0, len(hu), _ROWS):
        table.take(index[row : row + _ROWS], out=hu[row : row + _ROWS], mode="clip")
    return hu


def compressed(image: Dataset) -> bool:
    """Return whether the pixels are of a transfer syntax that another process decodes."""
    return str(getattr(getattr(image, "file_meta", None), "TransferSyntaxUID", "")) in PLUGINS  # it may be a list


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
        samples, bits, photometric = (one_line(str(value)) for value in found.values())
        raise SeriesError(
            f"{path}: {samples} samples of {bits} bits, {photometric}, {frames} frames; "
            "need one frame of 8 or 16 bit MONOCHROME2. Leave the series out."
        )
    rows, columns = (whole(image, name, path) for name in ("Rows", "Columns"))
    if rows * columns > _MOST_PIXELS:
        raise SeriesError(
            f"{path}: {rows} x {columns} pixels; need at most {_MOST_PIXELS} together. Leave the series out."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cells:
    """How a stored value lies in its cell (PS3.5 8.1.1), and which values are padding."""

    allocated: int
    stored: int
    shift: int
    signed: bool
    padding: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Meaning:
    dtype: str
    cells: _Cells
    slope: float
    intercept: float


@lru_cache(maxsize=16)
def _table(meaning: _Meaning) -> NDArray[np.int16]:
    """Return the HU of every cell content, by the content as an unsigned number."""
    cells, dtype = meaning.cells, np.dtype(meaning.dtype)
    raw = np.arange(1 << 8 * dtype.itemsize, dtype=f"u{dtype.itemsize}").view(dtype.newbyteorder("="))
    # of the stored bits only: older scanners keep overlays in the bits above
    stored = (raw.astype(np.int32) >> cells.shift) & ((1 << cells.stored) - 1)
    if cells.signed:
        stored -= (stored >> (cells.stored - 1)) << cells.stored
    hu = np.rint(stored * np.float64(meaning.slope) + meaning.intercept).clip(AIR_HU, _HIGHEST_HU).astype(np.int16)
    if cells.padding is not None:
        low, high = cells.padding
        for values in (raw, stored):
            hu[(values >= low) & (values <= high)] = AIR_HU
    hu.flags.writeable = False
    return hu


def _cells(image: Dataset, path: Path) -> _Cells:
    names = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    allocated, stored, high, representation = (whole(image, name, path) for name in names)
    if allocated not in (8, 16) or not 0 < stored <= allocated or not stored - 1 <= high < allocated:
        raise SeriesError(
            f"{path}: {stored} bits stored, high bit {high}, {allocated} allocated. Leave the series out."
        )
    syntax = _syntax(image, path)
    # RLE keeps whole cells (PS3.5 G.2); the other codecs keep the stored bits
    shift = 0 if syntax.is_encapsulated and syntax != RLELossless else high + 1 - stored
    cells = _Cells(allocated=allocated, stored=stored, shift=shift, signed=representation == 1, padding=None)
    padding, limit = (optional(image, name, path) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if not isinstance(padding, int):
        return cells
    ends = [_as_stored(n, cells) for n in (padding, limit if isinstance(limit, int) else padding)]
    return replace(cells, padding=(min(ends), max(ends)))


def _as_stored(value: int, cells: _Cells) -> int:
    # a header may give -2000 as 63536, or the other way round
    value %= 1 << cells.allocated
    return value - (1 << cells.allocated) if cells.signed and value >> (cells.allocated - 1) else value


def _decoded(image: Dataset, cells: _Cells, path: Path) -> NDArray[np.integer]:
    """Return the cells as they are, (row, column), little-endian."""
    size = rows, columns = whole(image, "Rows", path), whole(image, "Columns", path)
    if not 0 < rows * columns <= _MOST_PIXELS:
        raise SeriesError(f"{path}: {rows} x {columns} pixels; damaged. Leave the series out.")
    data = needed(image, "PixelData", path)
    if not isinstance(data, bytes | memoryview):
        raise SeriesError(
            f"{path}: PixelData is no bytes (its value representation is another); damaged. Fetch it again."
        )
    syntax = _syntax(image, path)
    if syntax.is_encapsulated:
        frame = Frame(
            syntax=str(syntax),
            rows=rows,
            columns=columns,
            bits_allocated=cells.allocated,
            bits_stored=cells.stored,
            signed=cells.signed,
        )
        return shared_decoders().decode(frame, data, path)
    length = rows * columns * cells.allocated // 8
    if not length <= len(data) <= max(2 * length - 1, length + 1):
        raise SeriesError(
            f"{path}: pixels cannot be decoded ({len(data)} bytes where {rows} x {columns} pixels have {length}); "
            "truncated or damaged. Fetch it again."
        )
    number = np.dtype(f"{'i' if cells.signed else 'u'}{cells.allocated // 8}")
    if syntax == ExplicitVRBigEndian and (cells.allocated == 16 or image["PixelData"].VR == "OW"):  # words of two bytes
        pixels = np.frombuffer(bytes(data) + bytes(len(data) % 2), ">u2").astype("<u2").view(number)
    else:
        pixels = np.frombuffer(data, number, rows * columns)
    return pixels[: rows * columns].reshape(size)


def _syntax(image: Dataset, path: Path) -> UID:
    syntax = optional(getattr(image, "file_meta", None) or Dataset(), "TransferSyntaxUID", path)
    if not isinstance(syntax, UID) or not syntax.is_transfer_syntax:
        raise SeriesError(f"{path}: no transfer syntax in its header; need a whole DICOM file. Fetch it again.")
    return syntax


def _number(image: Dataset, name: str, path: Path) -> float:
    try:
        number = float(needed(image, name, path))
    except (TypeError, ValueError) as error:
        raise SeriesError(f"{path}: {name} is no number. Leave the series out.") from error
    if not np.isfinite(number):
        raise SeriesError(f"{path}: {name} {number}; need a finite number. Leave the series out.")
    return number
