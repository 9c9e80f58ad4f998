"""What the numbers mean that archives give as a reason (PS3.4 B.2.3, C.4; PS3.7 C; PS3.18 I.2.2)."""

from __future__ import annotations

from slicestream.errors import ArchiveError

_REASONS = {
    0x0110: "processing failure",
    0x0111: "another instance of this UID is there already",
    0x0112: "no such instance",
    0x0117: "not a valid SOP Instance UID",
    0x0122: "it does not keep this SOP class",
    0x0124: "not authorized",
    0x0210: "duplicate invocation",
    0x0211: "operation not known to it",
    0xA702: "it is out of resources, or cannot give that",
    0xB000: "it changed elements (coercion)",
    0xB006: "it left elements out",
    0xB007: "the data set does not match its SOP class",
    0xFE00: "cancelled",
}


class NotOfferedError(ArchiveError):
    """The archive does not offer a service, so what needs it cannot be done."""


def reason_text(code: int | str) -> str:
    """Return a status of DIMSE, or a reason of STOW-RS, in words with its number."""
    try:
        number = int(code)
    except ValueError:
        return "without a reason"
    text = _REASONS.get(number)
    if text is None and 0xA700 <= number <= 0xA7FF:
        text = "it is out of resources (disk full?): free space there"
    elif text is None and 0xA900 <= number <= 0xA9FF:
        text = "the data set does not match its SOP class"
    elif text is None and 0xC000 <= number <= 0xCFFF:
        text = "it cannot understand the data set"
    return f"{text or 'failure'} (0x{number:04X})"
