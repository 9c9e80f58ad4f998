"""What the formats that are DICOM share: looking at a header, and telling damage in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom import Dataset

from slicestream.dicom.annotations.choosing import printable
from slicestream.dicom.annotations.drawing import SeriesPlace
from slicestream.dicom.files import one_line, read_dicom
from slicestream.errors import AnnotationError, SliceStreamError


@contextmanager
def telling(path: Path, form: str) -> Iterator[None]:
    """Turn whatever a library raises over an untrusted file into an AnnotationError that names the file."""
    try:
        yield
    except SliceStreamError as error:
        raise AnnotationError(printable(str(error))) from error
    except Exception as error:  # a damaged file makes a parser fail in any way
        reason = printable(one_line(f"{type(error).__name__}: {error}"))
        raise AnnotationError(
            f"{path}: {form} that cannot be read ({reason}); need a whole, valid one. Write it again, or leave it out."
        ) from error


def series_named(
    path: Path, sop_classes: Sequence[str], keyword: str, series_of: Callable[[Dataset], list[str]]
) -> str | None:
    """Return the first series that `series_of` finds below `keyword`; None where the file is of no such SOP class.

    Where the file says one of these classes and the rest is damaged, "" is returned: reading it says what is wrong.
    """
    try:
        start = read_dicom(path, specific_tags=["SOPClassUID"], stop_before_pixels=True)
        stated = start.get("SOPClassUID") or start.file_meta.get("MediaStorageSOPClassUID")
        if stated not in sop_classes:
            return None
    except Exception:  # not DICOM, or nothing of it is left
        return None
    try:
        uids = series_of(read_dicom(path, specific_tags=[keyword], stop_before_pixels=True))
    except Exception:  # values are parsed when asked for, and may be anything
        return ""
    return uids[0] if uids else ""


def shares_frame(theirs: str, place: SeriesPlace, path: Path, *, same_series: bool) -> None:
    """Raise AnnotationError where file and series do not share a frame of reference.

    Where either names none, the file must name the series itself.
    """
    ours = place.frame_of_reference_uid
    if not (theirs == ours if theirs and ours else same_series):
        raise AnnotationError(
            f"{path}: frame of reference '{theirs}', series {place.uid} has '{ours}'; need the same. "
            "Give the file with the series that it was drawn on."
        )
