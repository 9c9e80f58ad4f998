"""A header read by its elements is what pydicom reads, and is kept byte by byte without its pixels."""

from __future__ import annotations

import io
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataelem import DataElement
from pydicom.tag import BaseTag

from ct_files import ct_slice
from slicestream.dicom.files import text_of
from slicestream.dicom.header import read_header, read_pixels
from slicestream.dicom.identity import part10_files
from slicestream.errors import StudyError

CARRIED = Path(pydicom.__file__).parent / "data" / "test_files"
_SEQUENCE = (
    b"\x01\x7f\x10\x00SQ\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
)  # and an item, both open
_EMPTY_ITEM = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"


def as_pydicom_reads_it(path: Path | io.BytesIO) -> dict[BaseTag, DataElement]:
    """Return the header by pydicom's own parser, without overlays, curves, icons and the lengths of groups."""
    header = dcmread(path, stop_before_pixels=True)
    pixels = (0x5000, 0x6000, 0x7FE0)
    left_out = [t for t in header.keys() if t.group & 0xFF00 in pixels or t == 0x00880200 or t.element == 0]  # noqa: SIM118
    return {tag: header[tag] for tag in header.keys() if tag not in left_out}  # noqa: SIM118


@pytest.mark.filterwarnings("ignore")
def test_headers_of_all_files_that_pydicom_carries_are_as_pydicom_reads_them() -> None:
    compared = refused = 0
    for path in sorted(path for path in CARRIED.rglob("*") if path.is_file()):
        try:
            file = read_header(path)
        except StudyError:
            with pytest.raises(Exception):  # noqa: B017, PT011  in whatever way it fails
                as_pydicom_reads_it(path)
            refused += 1
            continue
        expected = as_pydicom_reads_it(path)
        assert {tag: file.dataset[tag] for tag in file.dataset.keys()} == expected, path  # noqa: SIM118
        if file.encoded and "SOPInstanceUID" in file.dataset and min(expected) > 0x00020000:
            (kept,) = part10_files([file.dataset], [path.name], [file.encoded])
            assert as_pydicom_reads_it(io.BytesIO(kept)) == expected, path
            assert kept[:132] == path.read_bytes()[:132]
            compared += 1
    assert compared > 100
    assert refused < 20


def test_a_header_of_any_length_is_read_whole(tmp_path: Path) -> None:
    path, private = ct_slice(tmp_path / "a", z_mm=0), bytes(range(256)) * (1 << 12)
    image = dcmread(path)
    first_read = 1 << 15  # each element ends about there once, and less than the start of another before it
    for length in (*range(first_read - 800, first_read + 8, 6), 1 << 20):
        image.add(DataElement(0x00091001, "OB", private[:length]))
        image.save_as(path)
        file = read_header(path)
        assert file.dataset[0x00091001].value == private[:length]
        assert read_pixels(path, file) == image["PixelData"]


def test_nothing_of_overlays_curves_and_icons_is_kept(tmp_path: Path) -> None:
    path, mark = ct_slice(tmp_path / "a", z_mm=0), b"drawn by a person"
    image, icon = dcmread(path), Dataset()
    icon.BitsAllocated, icon.PixelData = 8, mark
    image.IconImageSequence = [icon]
    for tag, vr in ((0x60003000, "OW"), (0x60020022, "LO"), (0x50003000, "OW")):
        image.add(DataElement(tag, vr, mark + b" " if vr == "OW" else mark.decode()))
    image.save_as(path)
    file = read_header(path)
    (kept,) = part10_files([file.dataset], ["a"], [file.encoded])
    assert mark in path.read_bytes()
    assert mark not in kept
    assert dcmread(io.BytesIO(kept)).PatientName == "Test^Patient"


def test_a_sequence_where_text_belongs_is_one_line(tmp_path: Path) -> None:
    path, inner = ct_slice(tmp_path / "a", z_mm=0), Dataset()
    image = dcmread(path)
    inner.add(DataElement(0x00091001, "UN", b"odd"))
    del image.ImageType
    image.add(DataElement(0x00080008, "SQ", [inner]))
    image.save_as(path)
    for header in (read_header(path).dataset, dcmread(path)):
        with pytest.raises(
            StudyError, match=r"a: ImageType cannot be read \(a sequence\); damaged\. Fetch the file again\."
        ):
            text_of(header, "ImageType", path)


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        (_SEQUENCE * 5_000, "truncated or damaged"),
        (_SEQUENCE[:12] + _EMPTY_ITEM * 400_000, "too many elements in one file"),
    ],
    ids=["deep", "wide"],
)
def test_sequences_made_to_do_harm_are_one_line(tmp_path: Path, inner: bytes, said: str) -> None:
    path = ct_slice(tmp_path / "a", z_mm=0, PixelData=None)
    with path.open("ab") as stream:
        stream.write(inner)
    with pytest.raises(StudyError, match=said):
        read_header(path)


def outcome(path: Path) -> str:
    """Return what a file comes to."""
    try:
        return "no pixels" if read_pixels(path, read_header(path)) is None else "pixels"
    except StudyError as error:
        return "one line" if str(error).startswith(f"{path}: truncated or damaged") else str(error)


def test_a_header_that_is_cut_off_anywhere_has_no_pixels_or_is_one_line(tmp_path: Path) -> None:
    path = ct_slice(tmp_path / "a", z_mm=0)
    content = path.read_bytes()
    cut = set()
    for end in range(132, content.index(b"\xe0\x7f\x10\x00"), 3):
        path.write_bytes(content[:end])
        cut.add(outcome(path))
    assert cut == {"no pixels", "one line"}
    path.write_bytes(content)
    assert outcome(path) == "pixels"
