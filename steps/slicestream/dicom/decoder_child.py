"""The process that decodes compressed pixels: what it is given may be made to break a codec, so it may do little else.

Started by `decoder.py` as a script of its own (`python -P`), it imports the codecs, gives up what it does not need
(`lock_down`), and then answers requests on standard input until that ends. Request and answer are a JSON object and
bytes, with the length of the JSON before it (4 bytes, big-endian); nothing is unpickled on either side.
It imports nothing of slicestream, so that it starts quickly.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import platform
import resource
import signal
import struct
import sys
import warnings
from typing import Any, BinaryIO

# One plugin of pydicom per transfer syntax, so that what is installed beside them changes no voxel.
PLUGINS = {
    "1.2.840.10008.1.2.5": "pylibjpeg",  # RLE Lossless
    "1.2.840.10008.1.2.4.50": "gdcm",  # JPEG Baseline (8 bit)
    "1.2.840.10008.1.2.4.51": "gdcm",  # JPEG Extended, of 8 bit only
    "1.2.840.10008.1.2.4.57": "gdcm",  # JPEG Lossless, process 14
    "1.2.840.10008.1.2.4.70": "gdcm",  # JPEG Lossless, process 14, selection value 1
    "1.2.840.10008.1.2.4.80": "pyjpegls",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.81": "pyjpegls",  # JPEG-LS Near-Lossless
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.91": "pylibjpeg",  # JPEG 2000
    "1.2.840.10008.1.2.4.201": "pylibjpeg",  # HTJ2K Lossless
    "1.2.840.10008.1.2.4.202": "pylibjpeg",  # HTJ2K Lossless RPCL
    "1.2.840.10008.1.2.4.203": "pylibjpeg",  # HTJ2K
}
_CODECS = ("gdcm", "jpeg_ls", "openjpeg", "rle", "pydicom.pixels", "pydicom.pixels.decoders")
_UNUSED = ("requests", "tqdm")  # pydicom's, to fetch files for its own tests; a quarter of the time to start
_ALLOWED = {  # numbers of the system calls that memory, the two pipes, the clock and an orderly end need
    "x86_64": (
        0xC000003E,
        234,  # tgkill
        "0 1 3 5 7 8 9 10 11 12 13 14 15 24 25 28 35 38 39 60 96 98 131 186 202 204 219 228 230 231 271 318 334",
    ),
    "aarch64": (
        0xC00000B7,
        131,
        "57 62 63 64 73 80 93 94 98 101 103 113 115 123 124 128 132 134 135 139 165 169 172 178 214 215 216 222 226 "
        "233 278 293",
    ),
}


def main() -> None:
    """Answer requests until standard input ends."""
    memory_bytes, seconds = int(sys.argv[1]), float(sys.argv[2])
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # a codec that prints must not be taken for an answer
        os.dup2(nowhere, standard)
    sys.modules.update(dict.fromkeys(_UNUSED))  # type: ignore[arg-type]  # None: not to be imported
    for name in _CODECS:
        with contextlib.suppress(ImportError):  # asked for and missing, it is told in the answer
            importlib.import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    lock_down(memory_bytes)
    send(answers, {})
    while (request := receive(requests)) is not None:
        signal.setitimer(signal.ITIMER_REAL, seconds)  # should the parent be gone, this ends a decoder that hangs
        try:
            pixels = decoded(request[0], request[1])
            send(answers, {"dtype": pixels.dtype.str, "shape": list(pixels.shape)}, memoryview(pixels).cast("B"))
        except BaseException as error:  # each codec fails in its own way, one by a panic in Rust
            send(answers, {"error": type(error).__name__, "reason": str(error)[:500]})
        signal.setitimer(signal.ITIMER_REAL, 0)


def decoded(frame: dict[str, Any], data: bytes) -> Any:
    """Return the array (row, column) of one frame of encapsulated pixel data."""
    from pydicom.encaps import generate_frames
    from pydicom.pixels.decoders.base import get_decoder

    claimed = size_of(next(generate_frames(data, number_of_frames=1)))
    if claimed is not None and claimed != (frame["rows"], frame["columns"]):  # a codec may go on for long at more
        raise ValueError(f"codestream of {claimed[0]} x {claimed[1]} pixels")
    options: dict[str, Any] = {
        "rows": frame["rows"],
        "columns": frame["columns"],
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": frame["bits_allocated"],
        "bits_stored": frame["bits_stored"],
        "pixel_representation": int(frame["signed"]),
        "pixel_keyword": "PixelData",
        "correct_unused_bits": False,  # unused bits are removed by the caller
    }
    syntax = frame["syntax"]
    pixels, _ = get_decoder(syntax).as_array(data, decoding_plugin=PLUGINS[syntax], **options)
    return pixels.astype(pixels.dtype.newbyteorder("<"), order="C", copy=False)


def size_of(codestream: bytes) -> tuple[int, int] | None:
    """Return the rows and columns that a codestream claims (T.800 A.5.1, T.81 B.2.2, T.87 C.2.2), else None."""
    if codestream[:4] == b"\xff\x4f\xff\x51":
        if len(codestream) < 24:
            return None
        right, bottom, left, top = struct.unpack_from(">4I", codestream, 8)
        return bottom - top, right - left
    if codestream[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 9 <= len(codestream) and codestream[place] == 0xFF:
        marker, length = codestream[place + 1], int.from_bytes(codestream[place + 2 : place + 4], "big")
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = struct.unpack_from(">2H", codestream, place + 5)
            return rows, columns
        place += 1 if marker == 0xFF else 2 + length
    return None


def lock_down(memory_bytes: int) -> None:
    """Give up what decoding does not need: memory above a limit, files, sockets, other processes."""
    for limit, value in (("AS", memory_bytes), ("CORE", 0), ("FSIZE", 0)):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # not every system has every limit
            resource.setrlimit(getattr(resource, f"RLIMIT_{limit}"), (value, value))
    if sys.platform == "linux" and platform.machine() in _ALLOWED:
        _filter_system_calls(*_ALLOWED[platform.machine()])


def _filter_system_calls(architecture: int, tgkill: int, allowed: str) -> None:
    # seccomp(2), BPF: load the architecture, the number, compare; what is not allowed fails with EPERM
    load, equal, answer, allow, refuse, kill = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050001, 0x80000000
    numbers = [int(number) for number in allowed.split()]
    rules = [(load, 0, 0, 4), (equal, 1, 0, architecture), (answer, 0, 0, kill), (load, 0, 0, 0)]
    rules += [(equal, len(numbers) - index + 3, 0, number) for index, number in enumerate(numbers)]
    # abort() signals its own process; no other may be signalled
    rules += [(equal, 0, 2, tgkill), (load, 0, 0, 16), (equal, 1, 0, os.getpid())]
    rules += [(answer, 0, 0, refuse), (answer, 0, 0, allow)]
    program = b"".join(struct.pack("HBBI", *rule) for rule in rules)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(rules), ctypes.addressof(buffer))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    no_new_privileges, seccomp, by_filter = 38, 22, 2
    if prctl(no_new_privileges, 1, 0, 0, 0) == 0:
        prctl(seccomp, by_filter, header, 0, 0)  # a kernel without it leaves the limits above


def send(stream: BinaryIO, document: dict[str, Any], data: bytes | memoryview = b"") -> None:
    """Write one message."""
    text = json.dumps({**document, "bytes": len(data)}).encode()
    stream.write(struct.pack(">I", len(text)) + text)
    stream.write(data)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """Return the next message, None at the end."""
    size = stream.read(4)
    if len(size) < 4:
        return None
    document: dict[str, Any] = json.loads(stream.read(struct.unpack(">I", size)[0]))
    return document, stream.read(document["bytes"])


if __name__ == "__main__":
    main()
