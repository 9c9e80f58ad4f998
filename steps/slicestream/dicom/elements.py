"""Where the elements of an encoded dataset begin and end (PS3.5 7.1 and 7.5), and no more: values stay bytes.

For a CT header pydicom's own reader takes six times as long, and a cohort has as many headers as slices. What a value
means is pydicom's to say, when it is asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from pydicom.dataelem import RawDataElement, empty_value_for_VR
from pydicom.filereader import ENCODED_VR
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from slicestream.dicom.files import TooMuchError, tag_of

_MOST_ELEMENTS = 300_000  # far above any CT image, and within a second
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_VRS = {vr: vr.decode() for vr in ENCODED_VR}


class CutError(Exception):
    """The bytes end within an element."""


class Elements:
    """Walks along the elements in some bytes, never along more of them than any image has.

    Attributes
    ----------
    at : first byte of the element that was yielded last; after the last one, of what follows
    """

    def __init__(self, content: bytes | memoryview, at: int = 0, *, little: bool = True) -> None:
        order = "<" if little else ">"
        self.at, self._content, self._little, self._left = at, content, little, _MOST_ELEMENTS
        self._explicit = struct.Struct(f"{order}HH2sH").unpack_from
        self._implicit = struct.Struct(f"{order}HHL").unpack_from
        self._long = struct.Struct(f"{order}L").unpack_from

    def implicit(self, at: int) -> bool:
        """Tell whether the element at a place has no VR: a header may say otherwise than its file does."""
        return not bytes(self._content[at + 4 : at + 6]).isalpha()

    def until(self, stop: Callable[[int], bool], *, implicit: bool) -> Iterator[tuple[RawDataElement, int]]:
        """Yield each element before a tag to stop at, and where it ends; a last value may be cut short.

        Raises CutError where the bytes end before the end of an element can be told, StudyError.
        """
        content, size, little = self._content, len(self._content), self._little
        while self.at + 8 <= size:
            try:
                tag, vr, value, length = self._start(self.at, implicit)
                if tag == _ITEM_END or stop(tag):
                    return
                end = value + length
                past = end if length != _UNDEFINED else self._after_items(value, implicit or vr == "UN")
            except struct.error as error:
                raise CutError("ends within an element") from error
            if length == _UNDEFINED:
                end, vr = past - 8, vr if tag >> 16 == 0x7FE0 else "SQ"
            found = content[value:end] if end > value else empty_value_for_VR(vr, raw=True)
            as_raw = RawDataElement(tag_of(tag), vr, end - value, found, 0, implicit, little)  # type: ignore[arg-type]
            yield as_raw, past
            self.at = past

    def _start(self, at: int, implicit: bool) -> tuple[int, str | None, int, int]:
        """Return tag, VR (None where there is none), first byte and length of the value."""
        self._count()
        group, number, letters, length = self._explicit(self._content, at)
        tag = group << 16 | number
        vr = None if implicit else _VRS.get(letters) or _unknown(letters)
        if vr is None:  # some writers change to implicit elements in between
            return tag, None, at + 8, self._implicit(self._content, at)[2]
        if vr in EXPLICIT_VR_LENGTH_32:
            return tag, vr, at + 12, self._long(self._content, at + 8)[0]
        return tag, vr, at + 8, length

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise TooMuchError("too many elements in one file")

    def _after_items(self, at: int, implicit: bool) -> int:
        """Return where the items that begin at a place, and what ends them, end."""
        while True:
            self._count()
            group, number, length = self._implicit(self._content, at)
            tag, at = group << 16 | number, at + 8
            if tag == _SEQUENCE_END:
                return at
            if tag != _ITEM:
                raise ValueError(f"tag {tag:08x} between the items of a sequence")
            at = at + length if length != _UNDEFINED else self._after_item(at, implicit or self.implicit(at))

    def _after_item(self, at: int, implicit: bool) -> int:
        while True:
            tag, vr, value, length = self._start(at, implicit)
            if tag == _ITEM_END:
                return value
            at = value + length if length != _UNDEFINED else self._after_items(value, implicit or vr == "UN")


def _unknown(letters: bytes) -> str | None:
    return letters.decode("latin-1") if b"AA" <= letters <= b"ZZ" else None
