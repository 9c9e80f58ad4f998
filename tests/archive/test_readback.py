"""What counts as the same file: everything that was sent, whatever the archive added."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from ct_files import ct_slice
from slicestream.archive.readback import difference


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    item = Dataset()
    item.CodeValue = "27925004"
    return ct_slice(tmp_path / "sent.dcm", z_mm=0, ReferencedImageSequence=[item], PatientComments="as it is")


def kept(sent: Path, change: Callable[[Dataset], object], **how: object) -> Path:
    image = dcmread(sent)
    change(image)
    path = sent.with_name("kept.dcm")
    image.save_as(path, **how)
    return path


def test_the_same_file_is_equal(sent: Path) -> None:
    assert difference(sent, sent) == ""


@pytest.mark.parametrize(
    "change",
    [
        lambda image: setattr(image, "InstitutionName", "added"),
        lambda image: setattr(image.file_meta, "SourceApplicationEntityTitle", "ARCHIVE"),
        lambda image: image.add_new(0x00080000, "UL", 200),
        lambda image: setattr(image, "DataSetTrailingPadding", bytes(8)),
        lambda image: image.compress(RLELossless, generate_instance_uid=False),
    ],
    ids=["element added", "group 2", "group length", "padding", "compressed without loss"],
)
def test_what_an_archive_may_do_is_no_difference(sent: Path, change: Callable[[Dataset], object]) -> None:
    assert difference(sent, kept(sent, change)) == ""


def test_another_uncompressed_transfer_syntax_is_no_difference(sent: Path) -> None:
    def change(image: Dataset) -> None:
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian

    assert difference(sent, kept(sent, change, implicit_vr=True, little_endian=True)) == ""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda i: setattr(i, "PatientComments", "as it was"), "PatientComments differs"),
        (lambda i: delattr(i, "PatientComments"), "PatientComments is missing"),
        (lambda i: setattr(i, "PixelData", b"\0" + i.PixelData[1:]), "PixelData differs"),
        (lambda i: setattr(i, "PixelData", i.PixelData[:-2]), "PixelData differs"),
        (lambda i: setattr(i.ReferencedImageSequence[0], "CodeValue", "1"), "ReferencedImageSequence differs"),
        (lambda i: delattr(i, "PixelData"), "PixelData is missing"),
    ],
)
def test_what_an_archive_changed_or_dropped_is_named(
    sent: Path, change: Callable[[Dataset], object], expected: str
) -> None:
    assert difference(sent, kept(sent, change)) == expected


def test_pixels_changed_on_the_way_into_another_transfer_syntax_are_found(sent: Path) -> None:
    def change(image: Dataset) -> None:
        image.PixelData = b"\0" + image.PixelData[1:]
        image.compress(RLELossless, generate_instance_uid=False)

    assert difference(sent, kept(sent, change)) == "PixelData differs"


def test_what_cannot_be_read_is_a_difference(sent: Path) -> None:
    path = sent.with_name("kept.dcm")
    path.write_bytes(b"no DICOM")
    assert difference(sent, path).startswith("cannot be read (")
