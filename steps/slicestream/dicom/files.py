"""Opening one DICOM file, with every way that it can be damaged told in one line."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from slicestream.errors import StudyError

# Clinical headers break the standard in many small ways that do not matter here; what matters is checked by us.
config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)


def read_dicom(path: Path, **options: Any) -> Dataset:
    """Return the dataset; `options` are those of pydicom's dcmread. Raises StudyError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dcmread(path, **options)
    except InvalidDicomError as error:
        raise StudyError(f"{path}: not a DICOM file (no 'DICM' after 128 bytes); need DICOM. Remove it.") from error
    except FileNotFoundError as error:
        raise StudyError(f"{path}: no such file. Check the name.") from error
    except Exception as error:  # a damaged file makes the parser fail in any way
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StudyError(
            f"{path}: truncated or damaged ({one_line(reason)}); need a whole DICOM file. Fetch it again."
        ) from error


def optional(dataset: Dataset, name: str, path: Path) -> Any:
    """Return the value of a header element, None where it is missing. Raises StudyError where it is unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dataset.get(name)
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
    """Return the start of a library's message as one line."""
    return " ".join(text.split())[:120]
