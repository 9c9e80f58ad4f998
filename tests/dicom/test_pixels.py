"""Stored values to HU, by hand-made slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from ct_files import SIZE, ct_slice
from slicestream.dicom.pixels import hounsfield


def hu_of(path: Path, stored: NDArray[np.integer[Any]], **header: Any) -> NDArray[np.int16]:
    """Return the HU that a slice with these stored values, all along its first row, is read as."""
    pixels = np.full((SIZE, SIZE), stored[0])
    pixels[0, : len(stored)] = stored
    ct_slice(path, z_mm=0, PixelData=pixels.tobytes(), **header)
    return hounsfield(dcmread(path), path)[0, : len(stored)]


def test_slope_and_intercept_are_those_of_the_slice(tmp_path: Path) -> None:
    stored = np.array([0, 1000, 4095], "<u2")
    assert hu_of(tmp_path / "a", stored, RescaleSlope="0.5", RescaleIntercept="-10.2").tolist() == [-10, 490, 2037]


def test_values_below_air_become_air(tmp_path: Path) -> None:
    signed = {"PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15, "RescaleIntercept": "0"}
    assert hu_of(tmp_path / "a", np.array([-3024, -1025, -1023], "<i2"), **signed).tolist() == [-1024, -1024, -1023]


def test_padding_becomes_air_wherever_it_lies(tmp_path: Path) -> None:
    stored = np.array([3000, 1024, 2999], "<u2")
    assert hu_of(tmp_path / "a", stored, PixelPaddingValue=3000).tolist() == [-1024, 0, 1975]


def test_a_padding_range_becomes_air_in_either_order(tmp_path: Path) -> None:
    stored = np.array([2000, 2500, 3000, 3001], "<u2")
    for low, high in ((2000, 3000), (3000, 2000)):
        hu = hu_of(tmp_path / f"{low}", stored, PixelPaddingValue=low, PixelPaddingRangeLimit=high)
        assert hu.tolist() == [-1024, -1024, -1024, 1977]


def test_signed_padding_of_minus_2000_is_air(tmp_path: Path) -> None:
    signed = {"PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15, "RescaleIntercept": "1000"}
    stored = np.array([-2000, -1900], "<i2")
    assert hu_of(tmp_path / "a", stored, PixelPaddingValue=-2000, **signed).tolist() == [-1024, -900]


def test_bits_above_bits_stored_are_masked_off(tmp_path: Path) -> None:
    assert hu_of(tmp_path / "a", np.array([0xF000 | 1024, 0x1000 | 1124], "<u2")).tolist() == [0, 100]


def test_twelve_bit_signed_values_keep_their_sign(tmp_path: Path) -> None:
    stored = np.array([0x0FFF, 0xF000 | 0x0800, 100], "<u2")  # -1, -2048, 100 in 12 bits
    hu = hu_of(tmp_path / "a", stored, PixelRepresentation=1, RescaleIntercept="0")
    assert hu.tolist() == [-1, -1024, 100]


def test_left_aligned_bits_are_shifted_down(tmp_path: Path) -> None:
    assert hu_of(tmp_path / "a", np.array([1024 << 4, 1100 << 4], "<u2"), HighBit=15).tolist() == [0, 76]


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless]
)
def test_every_transfer_syntax_gives_the_same_hu(tmp_path: Path, syntax: Any) -> None:
    stored = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype("<u2")
    path = ct_slice(tmp_path / "a", z_mm=0, Rows=64, Columns=64, PixelData=stored.tobytes())
    image = dcmread(path)
    if syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        image.compress(syntax)
    else:
        image.file_meta.TransferSyntaxUID = syntax
    image.save_as(tmp_path / "b", enforce_file_format=True)
    assert np.array_equal(hounsfield(dcmread(tmp_path / "b"), path), stored.astype(np.int16) - 1024)
