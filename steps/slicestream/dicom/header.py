"""What a file that may be CT says before its pixels, and the pixels by the place where they begin."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from slicestream.dicom.elements import CutError, Elements
from slicestream.dicom.files import (
    MOST_BYTES,
    PIXELS,
    TooMuchError,
    inflated,
    one_line,
    opened,
    optional,
    tag_of,
    telling,
)
from slicestream.errors import StudyError

_FIRST_BYTES, _MORE = 1 << 15, 7  # most headers are shorter; else seven times as much is read in addition
_META = 132  # after preamble and 'DICM' (PS3.10 7.1)
_CHARSET, _PIXEL_DATA = tag_of(0x00080005), tag_of(0x7FE00010)
_PIXELS_ELSEWHERE = {0x00880200, 0x00287FE0}  # IconImageSequence, PixelDataProviderURL


@dataclass(frozen=True, kw_only=True, slots=True)
class FileHeader:
    """What stands in a file before its pixels: text about the image.

    Attributes
    ----------
    dataset : values are bytes until one is asked for; neither overlays, curves and icons nor lengths of groups
    encoded : the same, byte by byte as in the file; empty where that is big-endian
    pixels_at : first byte of the pixels, in the file or in what is inflated
    deflated_at : first byte of what is deflated, 0 where nothing is
    """

    dataset: Dataset
    encoded: bytes
    pixels_at: int
    deflated_at: int


def read_header(path: Path) -> FileHeader:
    """Return what a file says before its pixels. Raises StudyError."""
    with telling(path), opened(path) as (stream, size):
        content = b""
        while True:
            more = stream.read(min(_MORE * len(content), MOST_BYTES) or _FIRST_BYTES)
            content += more
            whole = not more or len(content) >= size
            try:
                return _header(content, path, whole=whole)
            except CutError as error:
                if whole:
                    raise EOFError(str(error)) from error
                if len(content) >= MOST_BYTES:
                    raise TooMuchError(f"over {MOST_BYTES >> 20} MiB in one file") from error


def read_pixels(path: Path, header: FileHeader) -> DataElement | None:
    """Return PixelData as it stands in the file, None where there is none. Raises StudyError."""
    with telling(path), opened(path) as (stream, size):
        start = header.deflated_at or header.pixels_at
        stream.seek(start)
        content = stream.read(min(max(size - start, 0), MOST_BYTES))
        if header.deflated_at:
            content = inflated(content)[header.pixels_at :]
        implicit, little = header.dataset.original_encoding
        try:
            for element, _ in Elements(memoryview(content), little=bool(little)).until(_never, implicit=bool(implicit)):
                if element.tag == _PIXEL_DATA:
                    return _pixels(element, path)
        except CutError:
            pass
    return None


def _pixels(element: RawDataElement, path: Path) -> DataElement:
    if element.VR not in (None, "OB", "OW", "UN"):
        raise StudyError(
            f"{path}: PixelData cannot be read (value representation {one_line(str(element.VR))}); damaged. "
            "Fetch the file again."
        )
    return DataElement(element.tag, element.VR or "OW", element.value, already_converted=True)


def _header(content: bytes, path: Path, *, whole: bool) -> FileHeader:
    """Return the header in the first bytes of a file, or in all of it. Raises CutError where there are too few."""
    if content[_META - 4 : _META] != b"DICM":
        raise InvalidDicomError
    preamble, walk = content[: _META - 4], Elements(content, _META)
    meta = FileMetaDataset({element.tag: element for element, _ in walk.until(_after_meta, implicit=False)})
    meta.set_original_encoding(False, True, default_encoding)
    syntax, deflated_at = optional(meta, "TransferSyntaxUID", path), 0
    if syntax == DeflatedExplicitVRLittleEndian:
        if not whole:
            raise CutError
        deflated_at, content = walk.at, inflated(content[walk.at :])
    little = syntax != ExplicitVRBigEndian
    walk = Elements(content, 0 if deflated_at else walk.at, little=little)
    implicit = walk.implicit(walk.at)
    found, encoded = _kept(walk, content, implicit=implicit, whole=whole)
    dataset, charset = Dataset(found), found.get(_CHARSET)
    dataset.set_original_encoding(implicit, little, _encodings(charset) if charset else default_encoding)
    dataset.file_meta, dataset.preamble = meta, preamble
    return FileHeader(dataset=dataset, encoded=encoded if little else b"", pixels_at=walk.at, deflated_at=deflated_at)


def _kept(
    walk: Elements, content: bytes, *, implicit: bool, whole: bool
) -> tuple[dict[BaseTag, RawDataElement | DataElement], bytes]:
    """Return the elements before the pixels that are kept, and their bytes. Raises CutError."""
    found: dict[BaseTag, RawDataElement | DataElement] = {}
    parts, start = [], walk.at
    for element, past in walk.until(_at_pixels, implicit=implicit):
        if past > len(content) and not whole:
            raise CutError
        if _is_kept(element.tag):
            found[element.tag] = element
        else:
            parts.append(content[start : walk.at])
            start = past
    if walk.at + 8 > len(content) and not whole:
        raise CutError
    return found, b"".join((*parts, content[start : walk.at]))


def _is_kept(tag: int) -> bool:
    """Tell whether an element is text about the image: no pixels, overlay, curve or icon, nor the length of a group."""
    group, number = tag >> 16, tag & 0xFFFF
    pixels = group == 0x7FE0 or group & 0xFF01 in (0x5000, 0x6000) or tag in _PIXELS_ELSEWHERE
    return not pixels and (number != 0 or group <= 6)


def _after_meta(tag: int) -> bool:
    return tag >> 16 != 2


def _at_pixels(tag: int) -> bool:
    return tag in PIXELS


def _never(_tag: int) -> bool:
    return False


@lru_cache(maxsize=256)
def _encodings(charset: RawDataElement) -> str | list[str]:
    return convert_encodings(convert_raw_data_element(charset).value)
