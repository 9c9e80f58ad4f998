"""A codec that crashes, hangs, fills memory or is taken over: one line, and the next image goes on."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from ct_files import ct_slice
from jpeg_lossless import encode
from slicestream.dicom import decoder as decoder_module
from slicestream.dicom import decoder_child
from slicestream.dicom.decoder import MEMORY_BYTES, SECONDS, Decoder, Decoders, Frame, shared_decoders
from slicestream.dicom.files import read_dicom
from slicestream.dicom.header import read_header
from slicestream.dicom.pixels import check_plain_grey, hounsfield
from slicestream.errors import SeriesError, StudyError

PATH = Path("k.dcm")
STORED = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype("<u2")


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    """A decoder of the test's own."""
    made = Decoder()
    yield made
    made.close()


def frame(syntax: str, size: int = 64) -> Frame:
    return Frame(syntax=syntax, rows=size, columns=size, bits_allocated=16, bits_stored=12, signed=False)


def slice_in(path: Path, syntax: str) -> Path:
    """Write `STORED` as one compressed CT slice."""
    image = dcmread(ct_slice(path, z_mm=0, Rows=64, Columns=64, PixelData=STORED.tobytes()))
    image.compress(syntax)
    image.save_as(path)
    return path


def hounsfield_of(path: Path) -> NDArray[np.int16]:
    """Return the HU of the image in a file, after the same check as a slice of a series."""
    image = read_dicom(path)
    check_plain_grey(image, path)
    return hounsfield(image, path)


def encoded(tmp_path: Path, syntax: str) -> bytes:
    """Return the compressed pixel data of `STORED`."""
    return bytes(dcmread(slice_in(tmp_path / "slice.dcm", syntax)).PixelData)


def child_of(decoder: Decoder) -> int:
    assert decoder._child is not None
    return decoder._child.pid


def rss_bytes(pid: int) -> int:
    """Return the largest resident set that a process has had."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def test_a_decoder_that_crashes_is_one_line_and_the_next_image_is_read(decoder: Decoder, tmp_path: Path) -> None:
    data = encoded(tmp_path, RLELossless)
    assert np.array_equal(decoder.decode(frame(RLELossless), data, PATH), STORED)
    first = child_of(decoder)
    os.kill(first, signal.SIGSTOP)  # it holds the image, and then breaks

    def crash() -> None:
        os.kill(first, signal.SIGSEGV)
        os.kill(first, signal.SIGCONT)

    timer = threading.Timer(0.2, crash)
    timer.start()
    with pytest.raises(SeriesError, match=r"^k\.dcm: the decoder crashed \(signal SIGSEGV\) on its pixels; damaged"):
        decoder.decode(frame(RLELossless), data, PATH)
    timer.join()
    assert np.array_equal(decoder.decode(frame(RLELossless), data, PATH), STORED)
    assert child_of(decoder) != first


def test_a_child_that_went_between_two_images_is_replaced_silently(decoder: Decoder, tmp_path: Path) -> None:
    data = encoded(tmp_path, RLELossless)
    decoder.decode(frame(RLELossless), data, PATH)
    os.kill(child_of(decoder), signal.SIGKILL)
    os.waitid(os.P_PID, child_of(decoder), os.WEXITED | os.WNOWAIT)
    assert np.array_equal(decoder.decode(frame(RLELossless), data, PATH), STORED)


def test_a_decoder_that_hangs_is_stopped_in_time(decoder: Decoder, tmp_path: Path) -> None:
    data = encoded(tmp_path, JPEGLSLossless)
    decoder.decode(frame(JPEGLSLossless), data, PATH)
    hung, decoder._limits = child_of(decoder), (MEMORY_BYTES, 1.0)
    os.kill(hung, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(SeriesError, match=r"^k\.dcm: decoding its pixels took over 1 s and was stopped"):
        decoder.decode(frame(JPEGLSLossless), data, PATH)
    assert 0.9 < time.monotonic() - start < 6
    decoder._limits = (MEMORY_BYTES, SECONDS)
    assert not Path(f"/proc/{hung}").exists()
    assert np.array_equal(decoder.decode(frame(JPEGLSLossless), data, PATH), STORED)


@pytest.mark.parametrize("side", [20_000, 60_000])
def test_a_jpeg_2000_header_that_claims_gigabytes_is_one_line(decoder: Decoder, tmp_path: Path, side: int) -> None:
    stream = bytearray(next(generate_frames(encoded(tmp_path, JPEG2000Lossless), number_of_frames=1)))
    size = stream.index(b"\xff\x51") + 6
    for place in (size, size + 4, size + 16, size + 20):  # Xsiz, Ysiz, XTsiz, YTsiz (T.800 A.5.1)
        stream[place : place + 4] = side.to_bytes(4, "big")
    with pytest.raises(SeriesError, match=r"^k\.dcm: "):
        decoder.decode(frame(JPEG2000Lossless), encapsulate([bytes(stream)]), PATH)
    if decoder._child is not None:
        assert rss_bytes(child_of(decoder)) < MEMORY_BYTES
    good = encoded(tmp_path, JPEG2000Lossless)
    assert np.array_equal(decoder.decode(frame(JPEG2000Lossless), good, PATH), STORED)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1])
def test_a_codestream_of_another_size_than_the_header_is_one_line_at_once(
    decoder: Decoder, tmp_path: Path, syntax: str
) -> None:
    if syntax == JPEGLosslessSV1:
        data = encapsulate([b"\xff\xd8\xff\xe0\x00\x04ab" + encode(STORED, precision=12, predictor=1)[2:]])
    else:
        data = encoded(tmp_path, syntax)
    assert np.array_equal(decoder.decode(frame(syntax), data, PATH), STORED)
    with pytest.raises(SeriesError, match=r"^k\.dcm: pixels cannot be decoded \(codestream of 64 x 64 pixels\)"):
        decoder.decode(frame(syntax, 4096), data, PATH)


def test_more_memory_than_allowed_is_one_line(tmp_path: Path) -> None:
    small = Decoder(memory_bytes=200 << 20)
    side = 8192
    try:
        with pytest.raises(SeriesError, match=r"k\.dcm: decoding its pixels needs over 200 MiB"):
            small.decode(frame(RLELossless, side), encoded(tmp_path, RLELossless), PATH)
        assert np.array_equal(small.decode(frame(RLELossless), encoded(tmp_path, RLELossless), PATH), STORED)
    finally:
        small.close()


def test_a_header_that_claims_too_many_pixels_is_one_line(tmp_path: Path) -> None:
    path = slice_in(tmp_path / "a.dcm", RLELossless)
    image = dcmread(path)
    image.Rows = image.Columns = 60_000
    image.save_as(path)
    with pytest.raises(SeriesError, match="60000 x 60000 pixels; need at most 16777216"):
        hounsfield_of(path)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_the_next_image_is_read_after_a_damaged_one(decoder: Decoder, tmp_path: Path, syntax: str) -> None:
    good = encoded(tmp_path, syntax)
    for damaged in (b"", good[:9], good[:40], good[: len(good) // 2], bytes(len(good)), good[:60] + b"\xff" * 400):
        with pytest.raises(SeriesError, match=r"^k\.dcm: [^\n]*$"):
            decoder.decode(frame(syntax), damaged, PATH)
    assert np.array_equal(decoder.decode(frame(syntax), good, PATH), STORED)


SANDBOXED = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")


@pytest.mark.skipif(not SANDBOXED, reason="only Linux on amd64 and arm64 filters system calls")
def test_what_takes_over_the_child_reaches_no_file_socket_or_process(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a name")
    attempts = {
        "read a file": "open(sys.argv[2]).read()",
        "write a file": "open(sys.argv[2] + '2', 'w')",
        "list a folder": "os.listdir('/')",
        "remove a file": "os.remove(sys.argv[2])",
        "open a socket": "socket.socket()",
        "start a process": "os.posix_spawn('/bin/true', ['true'], {})",
        "fork": "os.fork()",
        "signal its parent": "os.kill(os.getppid(), 0)",
        "raise its limits": "resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
    }
    script = (
        "import importlib.util, json, os, resource, socket, sys\n"
        "spec = importlib.util.spec_from_file_location('child', sys.argv[1])\n"
        "child = importlib.util.module_from_spec(spec); spec.loader.exec_module(child)\n"
        "child.lock_down(1 << 30)\n"
        "done = []\n"
        f"for name, attempt in {attempts!r}.items():\n"
        "    try:\n        exec(attempt); done.append(name)\n"
        "    except (OSError, ValueError):\n        pass\n"
        "print(json.dumps(done))\n"
    )
    arguments = [sys.executable, "-I", "-c", script, str(decoder_child.__file__), str(tmp_path / "secret")]
    said = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert json.loads(said.stdout) == []
    assert (tmp_path / "secret").read_text() == "a name"


@pytest.mark.skipif(not SANDBOXED, reason="only Linux on amd64 and arm64 filters system calls")
def test_the_child_at_work_is_filtered_and_sees_no_variable(decoder: Decoder, tmp_path: Path) -> None:
    decoder.decode(frame(RLELossless), encoded(tmp_path, RLELossless), PATH)
    status = Path(f"/proc/{child_of(decoder)}/status").read_text()
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status
    assert b"HOME=" not in Path(f"/proc/{child_of(decoder)}/environ").read_bytes()


LIES = {
    "a length of gigabytes": "b'\\xff\\xff\\xff\\xff'",
    "no JSON": "message(b'no')",
    "JSON without end": "message(b'[' * 60000)",
    "another kind of JSON": "message(b'7')",
    "an object array": 'message(b\'{"dtype": "|O", "shape": [64, 64], "bytes": 8192}\') + bytes(8192)',
    "too many bytes": 'message(b\'{"dtype": "<u2", "shape": [64, 64], "bytes": 99999999999}\')',
    "another shape": 'message(b\'{"dtype": "<u2", "shape": [1, 4096], "bytes": 8192}\') + bytes(8192)',
    "text for a number": 'message(b\'{"dtype": "<u2", "shape": [64, 64], "bytes": "8192"}\')',
}


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_lies_is_one_line(lie: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    liar = tmp_path / "liar.py"
    liar.write_text(
        "import os, time\ndef message(text):\n    return len(text).to_bytes(4, 'big') + text\n"
        f"os.write(1, message(b'{{}}'))\nos.read(0, 1)\nos.write(1, {LIES[lie]})\ntime.sleep(60)\n"
    )
    monkeypatch.setattr(decoder_module, "_CHILD", liar)
    lied_to = Decoder(seconds=5.0)
    with pytest.raises(SeriesError, match=r"^k\.dcm: (the decoder gave|pixels \[1, 4096\], header 64 x 64)[^\n]*$"):
        lied_to.decode(frame(RLELossless), b"x", PATH)
    lied_to.close()


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    path = slice_in(tmp_path / "a.dcm", RLELossless)
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom slicestream.dicom.decoder import shared_decoders\n"
        "from slicestream.dicom.files import read_dicom\nfrom slicestream.dicom.pixels import hounsfield\n"
        "path = Path(sys.argv[1])\nhounsfield(read_dicom(path), path)\n"
        "print(shared_decoders()._all[0]._child.pid, flush=True)\nos._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    pid, deadline = int(done.stdout), time.monotonic() + 5
    while Path(f"/proc/{pid}/cmdline").exists() and time.monotonic() < deadline:
        if not Path(f"/proc/{pid}/cmdline").read_bytes():
            break  # ended, and waits to be collected
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{pid}").exists()


def children() -> list[int]:
    return [child_of(decoder) for decoder in shared_decoders()._all]


def test_one_child_serves_a_whole_run(tmp_path: Path) -> None:
    path = slice_in(tmp_path / "a.dcm", JPEGLSLossless)
    hounsfield_of(path)
    before = children()
    for _ in range(3):
        assert np.array_equal(hounsfield_of(path), STORED.astype(np.int16) - 1024)
    assert children() == before


def test_images_side_by_side_have_a_child_each_and_one_that_is_lost_is_one_image(tmp_path: Path) -> None:
    data, decoders = encoded(tmp_path, JPEGLSLossless), Decoders()
    try:
        decoders.decode(frame(JPEGLSLossless), data, PATH)
        (first,) = decoders._all
        os.kill(child_of(first), signal.SIGSTOP)  # it holds the image while others are decoded
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(decoders.decode, frame(JPEGLSLossless), data, PATH)
            while decoders._idle:
                time.sleep(0.01)
            for _ in range(3):
                assert np.array_equal(decoders.decode(frame(JPEGLSLossless), data, PATH), STORED)
            assert len(decoders._all) == 2
            os.kill(child_of(first), signal.SIGKILL)
            with pytest.raises(SeriesError, match=r"^k\.dcm: the decoder crashed \(signal SIGKILL\)"):
                held.result()
        assert np.array_equal(decoders.decode(frame(JPEGLSLossless), data, PATH), STORED)
    finally:
        decoders.close()
    assert all(decoder._child is None for decoder in decoders._all)


def deflated(path: Path, content: bytes, zeros: int) -> Path:
    """Write a deflated DICOM file of `content` and so many bytes 0, without holding them."""
    image = dcmread(ct_slice(path, z_mm=0))
    image.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    image.clear()
    image.save_as(path, enforce_file_format=False)
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = path.read_bytes()
    start = start[: len(start) - 2] if start.endswith(b"\x03\x00") else start
    with path.open("wb") as stream:
        stream.write(start + squeezer.compress(content))
        for _ in range(zeros >> 20):
            stream.write(squeezer.compress(bytes(1 << 20)))
        stream.write(squeezer.flush())
    return path


@pytest.mark.parametrize("read", [read_dicom, read_header])
def test_a_deflate_bomb_is_one_line(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = deflated(tmp_path / "bomb.dcm", b"\x09\x00\x10\x00OB\x00\x00\x00\x00\x00\x70", 320 << 20)
    assert path.stat().st_size < 2 << 20
    with pytest.raises(StudyError, match=r"bomb\.dcm: inflates to over 256 MiB; damaged, or made to do harm"):
        read(path)


@pytest.mark.parametrize("read", [read_dicom, read_header])
def test_a_header_of_a_million_elements_is_one_line(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = ct_slice(tmp_path / "many.dcm", z_mm=0, PixelData=None)
    with path.open("ab") as stream:
        stream.write(b"\x01\x7f\x10\x00LO\x00\x00" * 900_000)
    with pytest.raises(StudyError, match=r"many\.dcm: too many elements in one file"):  # by their number, not by time
        read(path)


@pytest.mark.parametrize("read", [read_dicom, read_header])
def test_sequences_in_sequences_without_end_are_one_line(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = ct_slice(tmp_path / "deep.dcm", z_mm=0, PixelData=None)
    undefined = b"\xff\xff\xff\xff"
    with path.open("ab") as stream:
        stream.write((b"\x40\x00\x75\x02SQ\x00\x00" + undefined + b"\xfe\xff\x00\xe0" + undefined) * 100_000)
    with pytest.raises(StudyError, match=r"deep\.dcm: truncated or damaged"):
        read(path)


@pytest.mark.parametrize("read", [read_dicom, read_header])
def test_a_length_of_gigabytes_takes_no_memory(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = ct_slice(tmp_path / "long.dcm", z_mm=0, PixelData=None)
    with path.open("ab") as stream:
        stream.write(b"\x09\x00\x10\x00OB\x00\x00\xf0\xff\xff\xff" + b"short")
    before = rss_bytes(os.getpid())
    read(path)  # what is missing of a value is found where it is used
    assert rss_bytes(os.getpid()) - before < 64 << 20


@pytest.mark.parametrize("read", [read_dicom, read_header])
def test_a_pipe_in_the_folder_is_not_waited_for(tmp_path: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    with pytest.raises(StudyError, match=r"pipe\.dcm: truncated or damaged \(no plain file\)"):
        read(tmp_path / "pipe.dcm")


def test_a_text_of_megabytes_is_not_unpacked(tmp_path: Path) -> None:
    path = ct_slice(tmp_path / "text.dcm", z_mm=0)
    image = dcmread(path)
    image.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    image._read_little = image._read_implicit = None
    image.RescaleSlope = None
    image.save_as(path, implicit_vr=True, little_endian=True)
    content = path.read_bytes()
    value = b"1\\" * 2_000_000
    slope = content.index(b"\x28\x00\x53\x10")
    path.write_bytes(
        content[:slope] + b"\x28\x00\x53\x10" + len(value).to_bytes(4, "little") + value + content[slope + 8 :]
    )
    with pytest.raises(StudyError, match=r"text\.dcm: RescaleSlope holds 4000000 bytes; need at most 65536"):
        hounsfield_of(path)


def test_pixel_data_that_is_called_text_is_one_line(tmp_path: Path) -> None:
    path = slice_in(tmp_path / "a.dcm", RLELossless)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\xe0\x7f\x10\x00OB", b"\xe0\x7f\x10\x00UT"))
    with pytest.raises(StudyError, match=r"a\.dcm: [^\n]*$"):
        hounsfield_of(path)
