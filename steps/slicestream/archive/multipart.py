"""multipart/related (RFC 2387) with DICOM files in it: written and read as a stream, never whole in memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from slicestream.archive.patience import TransientError

PIECE = 64 * 1024
LONGEST_HEADER = 16 * 1024
PART = b"Content-Type: application/dicom\r\n\r\n"
BOUNDARY = re.compile(r"""boundary=(?:"([^"\r\n]{1,200})"|([^\s;"]{1,200}))""", re.IGNORECASE)


class FormError(Exception):
    """An answer is not of the form that was asked for."""


def length(files: Sequence[Path], boundary: str) -> int:
    """Return the number of bytes that `body` yields."""
    around = len(f"--{boundary}\r\n") + len(PART) + len("\r\n")
    return sum(path.stat().st_size + around for path in files) + len(f"--{boundary}--\r\n")


def body(files: Iterable[Path], boundary: str) -> Iterator[bytes]:
    """Yield a request with one part per file, as the file is."""
    for path in files:
        yield f"--{boundary}\r\n".encode() + PART
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def boundary_of(content_type: str) -> bytes:
    """Return what separates the parts. Raises FormError."""
    found = BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/related") or not found:
        raise FormError(f"answers with '{content_type[:80]}'; need multipart/related")
    return (found[1] or found[2]).encode()


def save_only_part(pieces: Iterable[bytes], boundary: bytes, out: BinaryIO, *, limit: int) -> int:
    """Write the one part that there may be to `out`; return its bytes. Holds no more than a few pieces.

    Raises
    ------
    FormError
        No part, several, one that is not DICOM, or of more than `limit` bytes.
    TransientError
        The stream ends before the part does.
    """
    stream = iter(pieces)
    buffer, end = b"", b"\r\n--" + boundary
    while b"\r\n\r\n" not in buffer:
        if len(buffer) > LONGEST_HEADER:
            raise FormError(f"answers with a part whose header is over {LONGEST_HEADER} bytes")
        buffer += _next(stream)
    head, _, buffer = buffer.partition(b"\r\n\r\n")
    lines = (b"\r\n" + head).partition(end)
    if not lines[1] or b"content-type: application/dicom" not in lines[2].lower():
        raise FormError("answers with no part of the type application/dicom")
    written = 0
    while True:
        at = buffer.find(end)
        sure = at if at >= 0 else max(len(buffer) - len(end) + 1, 0)  # what may be the start of the end is kept back
        if written + sure > limit:
            raise FormError(f"answers with an instance of over {limit} bytes")
        written += out.write(buffer[:sure])
        buffer = buffer[sure:]
        if at >= 0:
            break
        buffer += _next(stream)
    rest = buffer[len(end) :]
    while len(rest) < 2:
        rest += _next(stream)
    if rest[:2] != b"--":
        raise FormError("answers with several parts where one instance was asked for")
    for _ in stream:  # to the end, so that the connection can be used again; what stands there is bounded by Pace
        pass
    return written


def _next(stream: Iterator[bytes]) -> bytes:
    piece = next(stream, b"")
    if not piece:
        raise TransientError("the answer ends in the middle of an instance")
    return piece
