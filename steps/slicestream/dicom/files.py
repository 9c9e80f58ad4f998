"""Opening one DICOM file, with every way that it can be damaged told in one line."""

from __future__ import annotations

import io
import logging
import stat
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from pydicom import config, dcmread
from pydicom.charset import default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import AMBIGUOUS_VR

from slicestream.errors import StudyError

# Clinical headers break the standard in many small ways that do not matter here; what matters is checked by us.
config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

# What parsing one file may take; far above any CT image, and within a few seconds and a few hundred MB.
MOST_BYTES = 1 << 30
_MOST_READS = 600_000  # two or three per element
_MOST_INFLATED_BYTES = 1 << 28
_LONGEST_VALUE_BYTES = 1 << 16  # what the VRs of numbers and short texts can hold in explicit form
PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})


def read_dicom(path: Path, **options: Any) -> Dataset:
    """Return the dataset; `options` are those of pydicom's dcmread. Raises StudyError."""
    with telling(path), opened(path) as (stream, size):
        try:
            return dcmread(_Limited(stream, size), **options)
        except _DeflatedError as found:
            stream.seek(0)
            start = stream.read(found.args[0])
            return _from_deflated(start, stream.read(MOST_BYTES), **options)


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Tell of whatever goes wrong in reading a file as a StudyError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except StudyError:
        raise
    except InvalidDicomError as error:
        raise StudyError(f"{path}: not a DICOM file (no 'DICM' after 128 bytes); need DICOM. Remove it.") from error
    except FileNotFoundError as error:
        raise StudyError(f"{path}: no such file. Check the name.") from error
    except TooMuchError as error:
        raise StudyError(f"{path}: {error}; damaged, or made to do harm. Leave it out.") from error
    except Exception as error:  # a damaged file makes the parser fail in any way
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StudyError(
            f"{path}: truncated or damaged ({one_line(reason)}); need a whole DICOM file. Fetch it again."
        ) from error


@contextmanager
def opened(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """Yield a file to be read, and its size."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for whoever writes to it
        raise OSError("no plain file")
    with path.open("rb") as stream:
        yield stream, status.st_size


class TooMuchError(Exception):
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
        if self._bytes > MOST_BYTES:
            raise TooMuchError(f"over {MOST_BYTES >> 20} MiB in one file")
        if self._reads > _MOST_READS:
            raise TooMuchError("too many elements in one file")
        return content


def inflated(deflated: bytes) -> bytes:
    """Return what was deflated (PS3.5 A.5)."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflater.decompress(deflated, _MOST_INFLATED_BYTES)
    if not inflater.eof:
        if len(content) >= _MOST_INFLATED_BYTES:
            raise TooMuchError(f"inflates to over {_MOST_INFLATED_BYTES >> 20} MiB")
        raise EOFError("the deflated part ends early")
    return content


def _from_deflated(start: bytes, deflated: bytes, **options: Any) -> FileDataset:
    """Return the dataset of a deflated file; `start` is what comes before it."""
    content = inflated(deflated)
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
    return tag in PIXELS


def optional(dataset: Dataset, name: str, path: Path) -> Any:
    """Return the value of a header element, None where it is missing: to be read, not changed.

    Raises StudyError where it is unreadable.
    """
    tag = _tag(name)
    try:
        element: Any = dataset.get_item(tag)
        if element is not None and element.VR == "SQ" and dictionary_VR(tag) != "SQ":
            raise ValueError("a sequence")
        if not isinstance(element, RawDataElement) or tag in PIXELS:
            return dataset.get(name)
        vr = dictionary_VR(tag) if element.VR in (None, "UN") else element.VR
        if vr != "SQ" and len(element.value or b"") > _LONGEST_VALUE_BYTES:  # before it becomes many times its size
            raise TooMuchError(f"{name} holds {element.length} bytes; need at most {_LONGEST_VALUE_BYTES}")
        if vr != "SQ" and vr not in AMBIGUOUS_VR:
            charset = dataset.original_character_set
            return _value(element, charset if isinstance(charset, str) else tuple(charset))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dataset.get(name)
    except TooMuchError as error:
        raise StudyError(f"{path}: {error}. Leave the file out.") from error
    except Exception as error:  # values are parsed when asked for, and may be anything
        raise StudyError(
            f"{path}: {name} cannot be read ({one_line(str(error))}); damaged. Fetch the file again."
        ) from error


@lru_cache(maxsize=4096)
def tag_of(number: int) -> BaseTag:
    """Return the tag, the same object each time: pydicom's dictionaries then find it without comparing numbers."""
    return BaseTag(number)


@lru_cache(maxsize=256)
def _tag(name: str) -> BaseTag:
    return tag_of(Tag(name))


@lru_cache(maxsize=4096)
def _value(element: RawDataElement, encoding: str | tuple[str, ...]) -> Any:
    """Return what an element holds. The slices of a series share most elements, so that most are here already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        charset = encoding if isinstance(encoding, str) else list(encoding)
        return convert_raw_data_element(element, encoding=charset or default_encoding).value


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
