"""Decoding compressed pixels in a process of its own: what crashes a codec, or fills memory, is one of our errors."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID

from slicestream.dicom.decoder_child import PLUGINS
from slicestream.dicom.files import one_line
from slicestream.errors import SeriesError

MEMORY_BYTES = 1 << 30  # address space of the child
SECONDS = 8.0  # per image; with the rest of a slice under 10
_START_SECONDS = 120.0  # importing the codecs from a slow disk
_CHILD = Path(__file__).with_name("decoder_child.py")
_LONGEST_TEXT = 1 << 16
_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031  # fcntl.F_SETPIPE_SZ
_DTYPES = {"|u1", "|i1", "<u2", "<i2"}
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")

# of glibc: to give each image's memory back and fetch it again would take longer than the pipe does
_KEEP_MEMORY = {f"MALLOC_{name}_": str(64 << 20) for name in ("TRIM_THRESHOLD", "MMAP_THRESHOLD")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """What a codec must know of one encapsulated frame; the names are those of the header."""

    syntax: str
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool


class _LostError(Exception):
    """The child ended, or answers no more."""


class Decoder:
    """A child that decodes, started when it is first needed and again after one that was lost."""

    def __init__(self, *, memory_bytes: int = MEMORY_BYTES, seconds: float = SECONDS) -> None:
        self._limits = (memory_bytes, seconds)
        self._child: subprocess.Popen[bytes] | None = None
        self._ready = False

    def start(self) -> None:
        """Start the child, unless it is there, and do not wait for it: meanwhile its caller reads headers."""
        if self._child is None:
            self._child, self._ready = self._started(), False

    def decode(self, frame: Frame, data: bytes | memoryview, path: Path) -> NDArray[np.integer]:
        """Return the stored values, (row, column), of the encapsulated `data`. Raises SeriesError naming `path`."""
        if frame.syntax not in PLUGINS:
            raise SeriesError(
                f"{path}: transfer syntax {UID(frame.syntax).name}; need uncompressed, deflated, RLE, JPEG Lossless, "
                "JPEG-LS, JPEG 2000 or HTJ2K. Convert it, or leave the series out."
            )
        try:
            answer, pixels = self._asked(frame, data)
        except TimeoutError as error:
            self.close()
            raise SeriesError(
                f"{path}: decoding its pixels took over {self._limits[1]:g} s and was stopped; damaged, or made to do "
                "harm. Fetch it again."
            ) from error
        except _LostError as error:
            self.close()
            raise SeriesError(f"{path}: {error}; damaged, or made to do harm. Fetch it again.") from error
        except BaseException:
            self.close()  # half an answer may be in the pipe
            raise
        if "error" in answer:
            raise SeriesError(_refusal(path, answer, self._limits[0]))
        if answer.get("shape") != [frame.rows, frame.columns]:
            raise SeriesError(
                f"{path}: pixels {one_line(str(answer.get('shape')))}, header {frame.rows} x {frame.columns}. "
                "Fetch it again."
            )
        stored: NDArray[np.integer] = np.frombuffer(pixels, answer["dtype"]).reshape(frame.rows, frame.columns)
        return stored

    def close(self) -> None:
        """End the child; the next image starts another."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]  # both were asked for

    def _asked(self, frame: Frame, data: bytes | memoryview) -> tuple[dict[str, Any], bytearray]:
        if self._child is not None and self._child.poll() is not None:
            self.close()  # it went while it had nothing to do, so by no image's fault
        child = self._awaited()
        deadline = time.monotonic() + self._limits[1]
        text = json.dumps({**asdict(frame), "bytes": len(data)}).encode()
        _write(child, struct.pack(">I", len(text)) + text + data, deadline)
        answer = _read_document(child, deadline)
        if "error" in answer:
            return answer, bytearray()
        size = frame.rows * frame.columns * (frame.bits_allocated // 8)
        if answer.get("dtype") not in _DTYPES or answer.get("bytes") != size:
            raise _LostError(f"the decoder gave {one_line(str(answer.get('bytes')))} bytes where {size} are needed")
        return answer, _read(child, size, deadline)

    def _awaited(self) -> subprocess.Popen[bytes]:
        """Return the child when it has said that it is ready."""
        self.start()
        assert self._child is not None
        if not self._ready:
            try:
                _read_document(self._child, time.monotonic() + _START_SECONDS)
            except (_LostError, TimeoutError) as error:
                self.close()
                text = f"the decoder of compressed pixels does not start ({error}). Install again."
                raise SeriesError(text) from error
            self._ready = True
        return self._child

    def _started(self) -> subprocess.Popen[bytes]:
        memory_bytes, seconds = self._limits
        # one thread is enough for one slice, and each more reserves memory
        one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
        child = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD), str(memory_bytes), str(seconds + 1)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ} | one_thread | _KEEP_MEMORY,
        )
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            _widen(pipe.fileno())
        return child


class Decoders:
    """As many decoders as images are decoded side by side, one of them while it is one by one."""

    def __init__(self) -> None:
        self._idle: list[Decoder] = []
        self._all: list[Decoder] = []

    def start(self, count: int) -> None:
        """Start so many, unless they are there; for one thread alone."""
        while len(self._all) < count:
            self._all.append(Decoder())
            self._idle.append(self._all[-1])
        for decoder in self._all[:count]:
            decoder.start()

    def decode(self, frame: Frame, data: bytes | memoryview, path: Path) -> NDArray[np.integer]:
        """Return what `Decoder.decode` does. May be called by several threads."""
        try:
            decoder = self._idle.pop()
        except IndexError:
            decoder = Decoder()
            self._all.append(decoder)
        try:
            return decoder.decode(frame, data, path)
        finally:
            self._idle.append(decoder)

    def close(self) -> None:
        """End all children; the next image starts another."""
        for decoder in self._all:
            decoder.close()


_shared: dict[int, Decoders] = {}  # of one process: a fork must not talk to its parent's children


def shared_decoders() -> Decoders:
    """Return the decoders of this process; they end with it."""
    pid = os.getpid()
    if pid not in _shared:
        _shared.clear()
        _shared[pid] = Decoders()
        atexit.register(_close, pid)
    return _shared[pid]


def _close(pid: int) -> None:
    if pid == os.getpid() and pid in _shared:
        _shared[pid].close()


def _refusal(path: Path, answer: dict[str, Any], memory_bytes: int) -> str:
    if answer["error"] == "MemoryError":
        return f"{path}: decoding its pixels needs over {memory_bytes >> 20} MiB; damaged. Leave the series out."
    reason = one_line(str(answer.get("reason", "")).split("available plugins:")[-1].split(" - ")[0])
    return f"{path}: pixels cannot be decoded ({reason}); truncated or damaged. Fetch it again."


def _widen(pipe: int) -> None:
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):  # a system may allow less
            fcntl.fcntl(pipe, _SET_PIPE_SIZE, _PIPE_BYTES)


def _write(child: subprocess.Popen[bytes], message: bytes, deadline: float) -> None:
    assert child.stdin is not None
    rest = memoryview(message)
    while rest:
        _wait(child, deadline, writing=True)
        try:
            rest = rest[os.write(child.stdin.fileno(), rest) :]
        except BrokenPipeError as error:
            raise _LostError(_end_of(child)) from error


def _read(child: subprocess.Popen[bytes], size: int, deadline: float) -> bytearray:
    assert child.stdout is not None
    message, got = bytearray(size), 0
    while got < size:
        _wait(child, deadline, writing=False)
        part = os.readv(child.stdout.fileno(), [memoryview(message)[got:]])
        if part == 0:
            raise _LostError(_end_of(child))
        got += part
    return message


def _read_document(child: subprocess.Popen[bytes], deadline: float) -> dict[str, Any]:
    size = struct.unpack(">I", _read(child, 4, deadline))[0]
    if size > _LONGEST_TEXT:
        raise _LostError("the decoder gave no sense")
    try:
        document = json.loads(_read(child, size, deadline))
    except (ValueError, RecursionError) as error:
        raise _LostError("the decoder gave no sense") from error
    if not isinstance(document, dict):
        raise _LostError("the decoder gave no sense")
    return document


def _wait(child: subprocess.Popen[bytes], deadline: float, *, writing: bool) -> None:
    pipe = child.stdin if writing else child.stdout
    assert pipe is not None
    waiting = select.poll()
    waiting.register(pipe.fileno(), select.POLLOUT if writing else select.POLLIN)
    if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError


def _end_of(child: subprocess.Popen[bytes]) -> str:
    try:
        status = child.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        return "the decoder stopped to answer"
    if status >= 0:
        return f"the decoder ended (status {status}) on its pixels"
    with suppress(ValueError):
        return f"the decoder crashed (signal {signal.Signals(-status).name}) on its pixels"
    return f"the decoder crashed (signal {-status}) on its pixels"
