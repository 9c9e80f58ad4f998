"""Every transfer syntax that CT comes in, by several encoders, against voxels that a formula gives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jpeg_ls
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from ct_files import ct_slice
from jpeg_lossless import encode
from slicestream.__main__ import main
from slicestream.dicom.files import read_dicom
from slicestream.dicom.identity import read_identities
from slicestream.dicom.pixels import hounsfield
from slicestream.dicom.series import read_series
from slicestream.dicom.study import find_cohort
from slicestream.errors import SeriesError

ROWS, COLUMNS = 48, 64
DATA = Path(__file__).with_name("data")


def pattern(low: int, high: int) -> NDArray[np.int64]:
    """Return slopes and edges, (row, column), from `low` to `high`, both of which it holds."""
    row, column = np.mgrid[:ROWS, :COLUMNS]
    values = low + (row * 61 + column * 29 + (row // 8 + column // 8) % 2 * 700) % (high - low)
    values[0, 0], values[-1, -1] = low, high
    return np.asarray(values, np.int64)


def hounsfield_of(path: Path) -> NDArray[np.int16]:
    """Return the HU of the image in a file."""
    return hounsfield(read_dicom(path), path)


def kind(dtype: str, stored: int, low: int, high: int) -> dict[str, Any]:
    """Return how values are stored: `dtype` of a cell, bits stored, and the range that is written."""
    return {"dtype": dtype, "stored": stored, "low": low, "high": high}


KINDS = {
    "8 bit": kind("<u1", 8, 0, 255),
    "12 in 16": kind("<u2", 12, 0, 4095),
    "12 in 16, signed": kind("<i2", 12, -2048, 2047),
    "16 bit": kind("<u2", 16, 0, 65535),
    "16 bit, signed": kind("<i2", 16, -32768, 32767),
}


def written(path: Path, of: dict[str, Any]) -> tuple[Path, NDArray[np.int64]]:
    """Write an uncompressed CT slice of that kind, HU = stored value; return it and its HU as they must be read."""
    values, bits = pattern(of["low"], of["high"]), 8 * np.dtype(of["dtype"]).itemsize
    ct_slice(
        path,
        z_mm=0,
        Rows=ROWS,
        Columns=COLUMNS,
        BitsAllocated=bits,
        BitsStored=of["stored"],
        HighBit=of["stored"] - 1,
        PixelRepresentation=int(of["low"] < 0),
        RescaleIntercept="0",
        PixelData=values.astype(of["dtype"]).tobytes(),
    )
    return path, values.clip(-1024, 32767)


def rewritten(syntax: UID) -> Callable[[Path, Path], None]:
    """Return a function that has pydicom write a file in another transfer syntax."""

    def by_pydicom(source: Path, target: Path) -> None:
        image = dcmread(source)
        if syntax.is_encapsulated:
            image.compress(syntax)
        elif syntax == ExplicitVRBigEndian and image.BitsAllocated == 16:
            image.PixelData = np.frombuffer(image.PixelData, "<u2").byteswap().tobytes()
        image.file_meta.TransferSyntaxUID = syntax
        little, implicit = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
        image._read_little = image._read_implicit = None  # what is written is not what was read
        image.save_as(target, little_endian=little, implicit_vr=implicit, enforce_file_format=True)

    return by_pydicom


def gdcm(*options: str) -> Callable[[Path, Path], None]:
    """Return a function that has gdcmconv write a file in another transfer syntax."""

    def by_gdcm(source: Path, target: Path) -> None:
        tool = Path(sys.executable).with_name("gdcmconv")
        subprocess.run([tool, *options, source, target], check=True, capture_output=True)

    return by_gdcm


def framed(syntax: UID, encoded: Callable[[NDArray[np.integer], int], bytes]) -> Callable[[Path, Path], None]:
    """Return a function that puts what an encoder makes of the stored bits into a file."""

    def by_encoder(source: Path, target: Path) -> None:
        image = dcmread(source)
        cells = np.frombuffer(image.PixelData, f"<u{image.BitsAllocated // 8}").reshape(ROWS, COLUMNS)
        stored = cells & ((1 << image.BitsStored) - 1)
        image.PixelData = encapsulate([encoded(stored, image.BitsStored)])
        image["PixelData"].VR = "OB"
        image["PixelData"].is_undefined_length = True
        image.file_meta.TransferSyntaxUID = syntax
        image.save_as(target, enforce_file_format=True)

    return by_encoder


def process_14(syntax: UID, predictor: int) -> Callable[[Path, Path], None]:
    """Return a function that writes JPEG lossless with one of its seven predictors."""
    return framed(syntax, lambda stored, bits: encode(stored, precision=bits, predictor=predictor))


WRITERS: dict[str, tuple[UID, Callable[[Path, Path], None]]] = {
    "implicit LE, pydicom": (ImplicitVRLittleEndian, rewritten(ImplicitVRLittleEndian)),
    "implicit LE, gdcm": (ImplicitVRLittleEndian, gdcm("--raw", "--implicit")),
    "explicit LE, gdcm": (ExplicitVRLittleEndian, gdcm("--raw", "--explicit")),
    "explicit BE, pydicom": (ExplicitVRBigEndian, rewritten(ExplicitVRBigEndian)),
    "deflated, pydicom": (DeflatedExplicitVRLittleEndian, rewritten(DeflatedExplicitVRLittleEndian)),
    "RLE, pydicom": (RLELossless, rewritten(RLELossless)),
    "RLE, gdcm": (RLELossless, gdcm("--rle")),
    "JPEG lossless SV1, gdcm": (JPEGLosslessSV1, gdcm("--jpeg")),
    "JPEG lossless SV1, own": (JPEGLosslessSV1, process_14(JPEGLosslessSV1, 1)),
    **{f"JPEG lossless, predictor {k}": (JPEGLossless, process_14(JPEGLossless, k)) for k in range(1, 8)},
    "JPEG-LS, CharLS": (JPEGLSLossless, rewritten(JPEGLSLossless)),
    "JPEG-LS, gdcm": (JPEGLSLossless, gdcm("--jpegls")),
    "JPEG 2000, pydicom": (JPEG2000Lossless, rewritten(JPEG2000Lossless)),
    "JPEG 2000, gdcm": (JPEG2000Lossless, gdcm("--j2k")),
}


@pytest.mark.parametrize("stored", KINDS)
@pytest.mark.parametrize("writer", WRITERS)
def test_every_transfer_syntax_gives_the_voxels_that_were_written(writer: str, stored: str, tmp_path: Path) -> None:
    source, expected = written(tmp_path / "source.dcm", KINDS[stored])
    syntax, write = WRITERS[writer]
    write(source, tmp_path / "target.dcm")
    assert dcmread(tmp_path / "target.dcm", stop_before_pixels=True).file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(hounsfield_of(tmp_path / "target.dcm"), expected)


def compressed_five_times(source: Path, target: Path) -> None:
    image = dcmread(source)
    image.compress(JPEG2000, j2k_cr=[5])
    image.save_as(target, enforce_file_format=True)


LOSSY: dict[str, tuple[Callable[[Path, Path], None], int]] = {
    # at most so many HU from what was written
    "JPEG-LS near-lossless, 3": (
        framed(JPEGLSNearLossless, lambda stored, _: jpeg_ls.encode_array(stored.astype("<u2"), lossy_error=3)),
        3,
    ),
    "JPEG 2000, 5 : 1": (compressed_five_times, 250),
}


@pytest.mark.parametrize("writer", LOSSY)
def test_lossy_pixels_are_read_within_their_loss(writer: str, tmp_path: Path) -> None:
    source, expected = written(tmp_path / "source.dcm", KINDS["12 in 16"])
    write, most = LOSSY[writer]
    write(source, tmp_path / "target.dcm")
    difference = np.abs(hounsfield_of(tmp_path / "target.dcm").astype(int) - expected)
    assert 0 < difference.max() <= most
    assert difference.mean() < most * 0.6


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL])
@pytest.mark.parametrize("signed", [False, True])
def test_htj2k_of_openjph_is_read(syntax: UID, *, signed: bool, tmp_path: Path) -> None:
    # made once by OpenJPH 0.26, from the slope and the chequers of this formula
    row, column = np.mgrid[:ROWS, :COLUMNS]
    expected = ((row * 61 + column * 29) % 4096 + (row // 8 + column // 8) % 2 * 700).clip(0, 4095) - 2048 * signed
    stream = (DATA / f"htj2k_{'signed' if signed else 'unsigned'}_16.j2c").read_bytes()
    source, _ = written(tmp_path / "source.dcm", KINDS["16 bit, signed" if signed else "16 bit"])
    framed(syntax, lambda *_: stream)(source, tmp_path / "target.dcm")
    assert np.array_equal(hounsfield_of(tmp_path / "target.dcm"), expected.clip(-1024, None))


@pytest.mark.parametrize("writer", ["explicit LE", "RLE"])
def test_bits_at_the_top_of_the_cell_are_found_where_cells_are_kept(writer: str, tmp_path: Path) -> None:
    source, expected = written(tmp_path / "source.dcm", KINDS["12 in 16"])
    image = dcmread(source)
    image.PixelData, image.HighBit = (pattern(0, 4095) << 4 | 5).astype("<u2").tobytes(), 15  # an overlay below
    image.save_as(source)
    rewritten(RLELossless if writer == "RLE" else ExplicitVRLittleEndian)(source, tmp_path / "target.dcm")
    assert np.array_equal(hounsfield_of(tmp_path / "target.dcm"), expected)


def test_slope_intercept_and_padding_hold_in_compressed_slices(tmp_path: Path) -> None:
    source, _ = written(tmp_path / "source.dcm", KINDS["12 in 16, signed"])
    image = dcmread(source)
    image.RescaleSlope, image.RescaleIntercept = "0.5", "100"
    for name, value in (("PixelPaddingValue", -2048), ("PixelPaddingRangeLimit", -2000)):
        image.add_new(name, "SS", value)
    image.save_as(source)
    stored = pattern(-2048, 2047)
    expected = np.where(stored <= -2000, -1024, np.rint(stored * 0.5 + 100))
    assert (stored <= -2000).sum() > 1
    for name in ("deflated, pydicom", "RLE, pydicom", "JPEG-LS, gdcm", "JPEG 2000, gdcm"):
        WRITERS[name][1](source, tmp_path / name)
        assert np.array_equal(hounsfield_of(tmp_path / name), expected), name


@pytest.mark.parametrize(
    "writer", ["JPEG lossless SV1, own", "JPEG lossless, predictor 7", "JPEG-LS, CharLS", "RLE, pydicom"]
)
def test_simpleitk_reads_the_same_voxels(writer: str, tmp_path: Path) -> None:
    source, expected = written(tmp_path / "source.dcm", KINDS["12 in 16, signed"])
    WRITERS[writer][1](source, tmp_path / "target.dcm")
    theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(tmp_path / "target.dcm"))[0]
    assert np.array_equal(theirs.clip(-1024, None), expected)
    assert np.array_equal(hounsfield_of(tmp_path / "target.dcm"), expected)


@pytest.mark.parametrize("name", ["implicit", "bigendian", "expb", "RLE", "jp2klossless", "jpeg_ls_lossless", "padded"])
def test_the_files_of_pydicom_agree_with_one_another(name: str, tmp_path: Path) -> None:
    both = []
    for path in (get_testdata_file("MR_small.dcm"), get_testdata_file(f"MR_small_{name}.dcm")):
        image = dcmread(str(path))
        image.RescaleSlope, image.RescaleIntercept = "1", "0"
        image.save_as(tmp_path / "image.dcm")
        both.append(hounsfield_of(tmp_path / "image.dcm"))
    assert both[0].max() > 1000
    assert np.array_equal(both[0], both[1])


def test_a_syntax_without_a_decoder_is_one_line(tmp_path: Path) -> None:
    source, _ = written(tmp_path / "source.dcm", KINDS["12 in 16"])
    mpeg = UID("1.2.840.10008.1.2.4.102")
    for syntax, said in (
        (mpeg, r"transfer syntax MPEG-4 .*; need uncompressed"),
        (JPEGExtended12Bit, "12-bit precision"),
    ):
        framed(syntax, lambda stored, bits: encode(stored, precision=bits, predictor=1))(source, tmp_path / "b.dcm")
        with pytest.raises(SeriesError, match=said) as refused:
            hounsfield_of(tmp_path / "b.dcm")
        assert str(refused.value).startswith(f"{tmp_path / 'b.dcm'}: ")


@pytest.mark.parametrize("writer", ["explicit BE, pydicom", "deflated, pydicom", "JPEG lossless, predictor 6"])
def test_the_kept_header_says_the_same_in_every_syntax(writer: str, tmp_path: Path) -> None:
    source, _ = written(tmp_path / "source.dcm", KINDS["12 in 16"])
    image = dcmread(source)
    image.add_new("RedPaletteColorLookupTableData", "OW", b"\x01\x02\x03\x04")
    image.save_as(source)
    (tmp_path / "cohort").mkdir()
    WRITERS[writer][1](source, tmp_path / "cohort" / "0.dcm")
    if ExplicitVRBigEndian in WRITERS[writer]:
        change_words(tmp_path / "cohort" / "0.dcm")
    (tmp_path / "key").write_text("a secret of the tests only\n")
    folders = [f"--{name}={tmp_path / name}" for name in ("cohort", "out")]
    assert main(["preprocess", *folders, f"--pseudonym-key={tmp_path / 'key'}"]) == 0
    (headers,) = read_identities([tmp_path / "out" / "source-1of1.identity"]).values()
    kept, expected = headers[0], dcmread(source)
    del expected.PixelData
    assert {element.tag: element.value for element in kept} == {element.tag: element.value for element in expected}


def change_words(path: Path) -> None:
    """Write the words of a big-endian file in its byte order, as its maker should have: pydicom leaves that to us."""
    content = path.read_bytes()
    assert content.count(b"\x01\x02\x03\x04") == 1
    path.write_bytes(content.replace(b"\x01\x02\x03\x04", b"\x02\x01\x04\x03"))


def test_each_slice_has_its_own_syntax_slope_and_intercept(tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    writers = (
        "JPEG lossless, predictor 4",
        "RLE, gdcm",
        "explicit BE, pydicom",
        "JPEG 2000, gdcm",
        "deflated, pydicom",
    )
    expected = []
    for index, name in enumerate(writers):
        source = ct_slice(
            tmp_path / "source.dcm",
            z_mm=2.5 * index,
            Rows=ROWS,
            Columns=COLUMNS,
            RescaleSlope=f"{0.25 * (index + 1)}",
            RescaleIntercept=f"{-100 * index}",
            PixelData=pattern(0, 4095).astype("<u2").tobytes(),
        )
        WRITERS[name][1](source, tmp_path / "cohort" / f"{9 - index}.dcm")
        expected.append(np.rint(pattern(0, 4095) * 0.25 * (index + 1) - 100 * index))
    (batch,) = find_cohort(tmp_path / "cohort").patients[0].batches
    (series,) = read_series(batch)
    assert np.array_equal(series.hu.whole(), np.array(expected))


@pytest.mark.real
def test_vendors_slices_are_read_as_simpleitk_reads_them(data: Path) -> None:
    slices = [sorted(folder.rglob("*.dcm"))[7::40] for folder in sorted((data / "ct").iterdir()) if folder.is_dir()]
    read = 0
    for path in (path for found in slices for path in found):
        image = dcmread(path, stop_before_pixels=True)
        if image.Modality == "CT" and "PixelPaddingValue" not in image:
            theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path))[0]
            assert np.array_equal(hounsfield_of(path), theirs.clip(-1024, 32767)), path
            read += 1
    assert read > 3
