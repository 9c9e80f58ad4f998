"""Opening one DICOM file, with every way that it can be damaged told in one line."""

from __future__ import annotations

import io
import logging
import stat
import warnings
import zlib
from pathlib import Path
from typing import IO, Any

from pydicom import config, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag

from slicestream.errors import StudyError

# Clinical headers break the standard in many small ways that do not matter here; what matters is checked by us.
config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

# What parsing one file may take; far above any CT image, and within a few seconds and a few hundred MB.
_MOST_BYTES = 1 << 30
_MOST_READS = 600_000  # two or three per element
_MOST_INFLATED_BYTES = 1 << 28
_LONGEST_VALUE_BYTES = 1 << 16  # what the VRs of numbers and short texts can hold in explicit form
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)


def read_dicom(path: Path, **options: Any) -> Dataset:
    """Return the dataset; `options` are those of pydicom's dcmread. Raises StudyError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _parsed(path, **options)
    except InvalidDicomError as error:
        raise StudyError(f"{path}: not a DICOM file (no 'DICM' after 128 bytes); need DICOM. Remove it.") from error
    except FileNotFoundError as error:
        raise StudyError(f"{path}: no such file. Check the name.") from error
    except _TooMuchError as error:
        raise StudyError(f"{path}: {error}; damaged, or made to do harm. Leave it out.") from error
    except Exception as error:  # a damaged file makes the parser fail in any way
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StudyError(
            f"{path}: truncated or damaged ({one_line(reason)}); need a whole DICOM file. Fetch it again."
        ) from error


class _TooMuchError(Exception):
    """Parsing a file would take more than any CT image needs."""


class _DeflatedError(Exception):
    """The dataset is deflated, from this byte on."""


class _Limited:
    """A file to be parsed: never more bytes or elements than allowed, whatever lengths it declares."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._size = stream, size
        self._bytes, self._reads = 0, 0
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; pydicom asks for all that is left where it is to be inflated."""
        if size < 0:
            raise _DeflatedError(self.tell())
        content = self._stream.read(min(size, max(0, self._size - self.tell())) if size > 8 else size)
        self._bytes += len(content)
        self._reads += 1
        if self._bytes > _MOST_BYTES:
            raise _TooMuchError(f"over {_MOST_BYTES >> 20} MiB in one file")
        if self._reads > _MOST_READS:
            raise _TooMuchError("too many elements in one file")
        return content


def _parsed(path: Path, **options: Any) -> Dataset:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for whoever writes to it
        raise OSError("no plain file")
    with path.open("rb") as stream:
        try:
            return dcmread(_Limited(stream, status.st_size), **options)
        except _DeflatedError as found:
            stream.seek(0)
            start = stream.read(found.args[0])
            return _inflated(start, stream.read(_MOST_BYTES), **options)


def _inflated(start: bytes, deflated: bytes, **options: Any) -> FileDataset:
    """Return the dataset of a deflated file (PS3.5 A.5); `start` is what comes before it."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflater.decompress(deflated, _MOST_INFLATED_BYTES)
    if not inflater.eof:
        if len(content) >= _MOST_INFLATED_BYTES:
            raise _TooMuchError(f"inflates to over {_MOST_INFLATED_BYTES >> 20} MiB")
        raise EOFError("the deflated part ends early")
    meta = dcmread(io.BytesIO(start)).file_meta
    stream = io.BytesIO(content)
    wanted = options.get("specific_tags")
    dataset = read_dataset(
        _Limited(stream, len(content)),  # type: ignore[arg-type]
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=_at_pixels if options.get("stop_before_pixels") else None,
        specific_tags=[Tag(tag) for tag in wanted] if wanted else None,
    )
    whole_file = FileDataset(stream, dataset, start[:128], meta, is_implicit_VR=False, is_little_endian=True)
    whole_file.set_original_encoding(False, True, dataset.original_character_set)
    return whole_file


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in _PIXELS


def _check_length(dataset: Dataset, name: str, path: Path) -> None:
    """Raise StudyError before a value is unpacked to many times its size."""
    tag = tag_for_keyword(name)
    if tag is None or tag in _PIXELS or tag not in dataset:
        return
    element: Any = dataset.get_item(tag)
    size = len(element.value or b"") if isinstance(element, RawDataElement) and element.VR != "SQ" else 0
    if size > _LONGEST_VALUE_BYTES:
        raise StudyError(f"{path}: {name} holds {size} bytes; need at most {_LONGEST_VALUE_BYTES}. Leave the file out.")


def optional(dataset: Dataset, name: str, path: Path) -> Any:
    """Return the value of a header element, None where it is missing. Raises StudyError where it is unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _check_length(dataset, name, path)
            return dataset.get(name)
    except StudyError:
        raise
    except Exception as error:  # values are parsed when asked for, and may be anything
        raise StudyError(
            f"{path}: {name} cannot be read ({one_line(str(error))}); damaged. Fetch the file again."
        ) from error


def needed(dataset: Dataset, name: str, path: Path) -> Any:
    """Return the value of a header element. Raises StudyError where it is missing, empty or unreadable."""
    value = optional(dataset, name, path)
    if value is None or value == "":
        raise StudyError(
            f"{path}: no {name} in the header (truncated?); need a whole CT image. "
            "Fetch it again, or leave the series out."
        )
    return value


def whole(dataset: Dataset, name: str, path: Path) -> int:
    """Return the value of a header element as a whole number. Raises StudyError."""
    value = needed(dataset, name, path)
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise StudyError(f"{path}: {name} is {one_line(str(value))}; need a whole number. Fetch it again.") from error


def text_of(dataset: Dataset, name: str, path: Path) -> str:
    """Return a header element as text, "" where it is missing. Raises StudyError where it is unreadable."""
    return str(optional(dataset, name, path) or "").strip()


def one_line(text: str) -> str:
    """Return the start of a library's message, or of a value, as one line without control characters."""
    shown = "".join(character if character.isprintable() else " " for character in text[:1000])
    return " ".join(shown.split())[:120]
