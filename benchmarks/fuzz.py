"""Damaged and hostile DICOM through all of `slicestream preprocess`: every outcome is a result or one clear line.

From a small CT slice in each transfer syntax, and from files that pydicom carries, inputs are made by a seeded chance:
bytes flipped, elements dropped, doubled, retagged, given another VR, length or value, files cut, codestreams damaged.
Each is read as a cohort by the command line's own function, in this process. Looked for: exceptions other than ours,
more or less than one line, more than 10 s, more than 2 GB, files anywhere but in the output folder, a parent that dies.

    python benchmarks/fuzz.py --inputs 20000 --seed 1
    python benchmarks/fuzz.py --only 4711 --seed 1        # one input again, with its traceback
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    JPEG2000,
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from slicestream.__main__ import main as slicestream
from slicestream.dicom.decoder import shared_decoder

MOST_SECONDS, MOST_BYTES = 10.0, 2_000_000_000
ROWS, COLUMNS = 48, 64
HTJ2K = Path(__file__).parents[1] / "tests" / "dicom" / "data" / "htj2k_unsigned_16.j2c"
CARRIED = (
    "CT_small",
    "693_J2KI",
    "J2K_pixelrep_mismatch",
    "MR_small_RLE",
    "MR_small_implicit",
    "nested_priv_SQ",
    "rtplan",
)
Mutate = Callable[[bytes, "Layout", np.random.Generator], bytes]


@dataclass(frozen=True, kw_only=True)
class Element:
    """Where an element of the main dataset lies: its first byte, its value, what comes after it."""

    start: int
    value: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The elements of a file, and where its pixel data begins and ends."""

    elements: tuple[Element, ...]
    pixels: tuple[int, int]


def layout_of(content: bytes) -> Layout:
    """Return where the elements lie that pydicom finds."""
    try:
        image = dcmread(io.BytesIO(content))
    except InvalidDicomError:
        return Layout(elements=(), pixels=(0, len(content)))
    implicit = image.file_meta.get("TransferSyntaxUID") == ImplicitVRLittleEndian
    elements = []
    pixels = (len(content) // 2, len(content))
    for tag in sorted(image.keys()):
        raw = image.get_item(tag)
        place = getattr(raw, "value_tell", None) or getattr(raw, "file_tell", None)
        if not place:
            continue
        long = not implicit and raw.VR in ("OB", "OW", "OF", "SQ", "UN", "UT", "UC", "UR", "OD", "OL")
        length = raw.length if getattr(raw, "length", 0xFFFFFFFF) != 0xFFFFFFFF else 0
        start = place - (12 if long else 8)
        elements.append(Element(start=start, value=place, end=min(place + length, len(content))))
        if tag == 0x7FE00010:
            pixels = (place, len(content))
    return Layout(elements=tuple(elements), pixels=pixels)


def flip(content: bytes, layout: Layout, rng: np.random.Generator) -> bytes:
    return overwritten(content, rng, 0, len(content))


def flip_header(content: bytes, layout: Layout, rng: np.random.Generator) -> bytes:
    return overwritten(content, rng, 128, max(layout.pixels[0], 129))


def flip_pixels(content: bytes, layout: Layout, rng: np.random.Generator) -> bytes:
    return overwritten(content, rng, *layout.pixels)


def flip_codestream_start(content: bytes, layout: Layout, rng: np.random.Generator) -> bytes:
    start, end = layout.pixels
    return overwritten(content, rng, start, min(end, start + 120))


def overwritten(content: bytes, rng: np.random.Generator, start: int, end: int) -> bytes:
    """Return the content with a few bytes changed in a range: any value, or one that codecs trip over."""
    changed = bytearray(content)
    for place in rng.integers(start, max(end, start + 1), int(rng.integers(1, 9))):
        if place < len(changed):
            changed[place] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF, int(rng.integers(256))]))
    return bytes(changed)


def cut(content: bytes, layout: Layout, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(len(content)))]


def cut_out(content: bytes, layout: Layout, rng: np.random.Generator) -> bytes:
    start, length = int(rng.integers(len(content))), int(rng.integers(1, 200))
    return content[:start] + content[start + length :]


def put_in(content: bytes, layout: Layout, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(content)))
    return content[:start] + rng.bytes(int(rng.integers(1, 200))) + content[start:]


def drop_element(content: bytes, layout: Layout, rng: np.random.Generator) -> bytes:
    one = chosen(layout, rng)
    return content[: one.start] + content[one.end :]


def double_element(content: bytes, layout: Layout, rng: np.random.Generator) -> bytes:
    one = chosen(layout, rng)
    return content[: one.end] + content[one.start : one.end] * int(rng.integers(1, 4)) + content[one.end :]


def retag_element(content: bytes, layout: Layout, rng: np.random.Generator) -> bytes:
    one, other = chosen(layout, rng), chosen(layout, rng)
    tag = content[other.start : other.start + 4] if rng.random() < 0.5 else rng.bytes(4)
    return content[: one.start] + tag + content[one.start + 4 :]


def another_vr(content: bytes, layout: Layout, rng: np.random.Generator) -> bytes:
    one = chosen(layout, rng)
    known = b"AEASATCSDADSDTFLFDISLOLTOBOWPNSHSLSQSSSTTMUIULUNUSUTZZ"
    place = 2 * int(rng.integers(len(known) // 2))
    return content[: one.start + 4] + known[place : place + 2] + content[one.start + 6 :]


def another_length(content: bytes, layout: Layout, rng: np.random.Generator) -> bytes:
    one = chosen(layout, rng)
    size = 2 if rng.random() < 0.7 else 4
    odd = [b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xfe\xff\xff\x7f", b"\x01\x00\x00\x00", rng.bytes(4)]
    length = odd[int(rng.integers(len(odd)))][:size]
    return content[: one.value - size] + length + content[one.value :]


VALUES = (
    b"",
    b"0",
    b"-1",
    b"1e999",
    b"nan",
    b"inf",
    b"-inf",
    b"\\",
    b"\\\\\\",
    b"1\\2\\3\\4\\5\\6\\7",
    b"\xff" * 8,
    b"\0" * 8,
)
VALUES += (
    b"1e-320",
    b"99999999999999999999",
    b"../../../tmp/x",
    b"\x1b$)C\xb1\xe8",
    b"a\nb",
    b"\xff\xff",
    b"\x00\x80",
    b"CT",
)


def another_value(content: bytes, layout: Layout, rng: np.random.Generator) -> bytes:
    one = chosen(layout, rng)
    value = VALUES[int(rng.integers(len(VALUES)))] if rng.random() < 0.8 else rng.bytes(int(rng.integers(0, 40)))
    value += b" " * (len(value) % 2)
    start = one.value
    return content[: start - 2] + len(value).to_bytes(2, "little") + value + content[one.end :]


def filled_pixels(content: bytes, layout: Layout, rng: np.random.Generator) -> bytes:
    start, end = layout.pixels
    start += int(rng.integers(max(1, end - start)))
    length = int(rng.integers(1, max(2, end - start + 1)))
    fill = (b"\xff" * length, b"\0" * length, rng.bytes(length))[int(rng.integers(3))]
    return content[:start] + fill + content[start + length :]


def swapped_pixels(content: bytes, layout: Layout, rng: np.random.Generator) -> bytes:
    start, end = layout.pixels
    first, second, third = sorted(int(n) for n in rng.integers(start, max(end, start + 1), 3))
    return content[:first] + content[second:third] + content[first:second] + content[third:]


def chosen(layout: Layout, rng: np.random.Generator) -> Element:
    if not layout.elements:
        return Element(start=132, value=140, end=144)
    return layout.elements[int(rng.integers(len(layout.elements)))]


MUTATIONS: tuple[Mutate, ...] = (
    flip,
    flip_header,
    flip_pixels,
    flip_codestream_start,
    cut,
    cut_out,
    put_in,
    drop_element,
    double_element,
    retag_element,
    another_vr,
    another_length,
    another_value,
    filled_pixels,
    swapped_pixels,
)


def plain_slice(**header: Any) -> Dataset:
    """Return one uncompressed CT slice with the elements that a scanner writes."""
    image, stored = Dataset(), np.add.outer(np.arange(ROWS) * 61, np.arange(COLUMNS) * 29) % 4096
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = CTImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = "1.2.826.0.1.3680043.10.1.3"
    texts = {"Modality": "CT", "PatientID": "P1", "PatientName": "Müller^Ä", "SpecificCharacterSet": "ISO_IR 100"}
    numbers = {"SliceThickness": "2.5", "RescaleIntercept": "-1024", "RescaleSlope": "1", "KVP": "120"}
    places = {
        "ImagePositionPatient": [0, 0, 5],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.7, 0.7],
    }
    cells = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0, "SamplesPerPixel": 1}
    size = {"Rows": ROWS, "Columns": COLUMNS, "PhotometricInterpretation": "MONOCHROME2"}
    uids = {"StudyInstanceUID": "1.2.3.4", "SeriesInstanceUID": "1.2.3.5", "FrameOfReferenceUID": "1.2.3.6"}
    for name, value in {**texts, **numbers, **places, **cells, **size, **uids, **header}.items():
        setattr(image, name, value)
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "121326", "DCM", "Alternate"
    image.ProcedureCodeSequence = [purpose, purpose]
    image.add_new("PixelPaddingValue", "US", 4095)
    image.private_block(0x0009, "SCANNER", create=True).add_new(1, "UN", b"\1\2\3\4")
    image.PixelData = stored.astype("<u2").tobytes()
    return image


def in_syntax(syntax: UID) -> bytes:
    """Return a file of the plain slice in a transfer syntax."""
    image, target = plain_slice(), io.BytesIO()
    if syntax == JPEGLosslessSV1:
        return by_gdcm(image)
    if syntax == HTJ2KLossless:
        image.PixelData = encapsulate([HTJ2K.read_bytes()])
        image["PixelData"].VR, image["PixelData"].is_undefined_length = "OB", True
    elif syntax == JPEG2000:
        image.compress(syntax, j2k_cr=[5])
    elif syntax.is_encapsulated:
        image.compress(syntax)
    elif syntax == ExplicitVRBigEndian:
        image.PixelData = np.frombuffer(image.PixelData, "<u2").byteswap().tobytes()
    image.file_meta.TransferSyntaxUID = syntax
    little, implicit = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    image.save_as(target, enforce_file_format=True, little_endian=little, implicit_vr=implicit)
    return target.getvalue()


def by_gdcm(image: Dataset) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "a.dcm", Path(folder) / "b.dcm"
        image.save_as(source, enforce_file_format=True)
        tool = Path(sys.executable).with_name("gdcmconv")
        subprocess.run([tool, "--jpeg", source, target], check=True, capture_output=True)
        return target.read_bytes()


def seeds() -> dict[str, bytes]:
    """Return the files that inputs are made from, by name."""
    syntaxes = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
    syntaxes += (RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, JPEG2000, HTJ2KLossless)
    made = {syntax.keyword: in_syntax(syntax) for syntax in syntaxes}
    made |= {name: carried(name) for name in CARRIED}
    made["no DICOM"] = bytes(range(256)) * 8
    return made


def carried(name: str) -> bytes:
    """Return a file that pydicom carries, as CT where it is an image: else its modality would end most readings."""
    image, target = dcmread(str(get_testdata_file(f"{name}.dcm"))), io.BytesIO()
    if "PixelData" in image:
        image.Modality, image.SOPClassUID, image.file_meta.MediaStorageSOPClassUID = (
            "CT",
            CTImageStorage,
            CTImageStorage,
        )
        for keyword, value in (("RescaleSlope", "1"), ("RescaleIntercept", "-1024")):
            setattr(image, keyword, getattr(image, keyword, value))
    image.save_as(target)
    return target.getvalue()


def mutated(name: str, content: bytes, layout: Layout, rng: np.random.Generator) -> tuple[str, bytes]:
    """Return what was done and what came of it; every second deflated file is damaged inside."""
    kinds = []
    inside = name == DeflatedExplicitVRLittleEndian.keyword and rng.random() < 0.5
    if inside:
        start = content.index(b"1.2.840.10008.1.2.1.99") + 22
        start = next(at for at in range(start, start + 400) if inflates(content[at:]))
        head, content = content[:start], zlib.decompress(content[start:], -15)
        layout = Layout(elements=(), pixels=(len(content) // 2, len(content)))
    for _ in range(1 + int(rng.random() < 0.3)):
        mutate = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        kinds.append(mutate.__name__)
        content = mutate(content, layout, rng)
    if inside:
        squeezer = zlib.compressobj(1, zlib.DEFLATED, -15)
        content = head + squeezer.compress(content) + squeezer.flush()
    return kinds[0], content


def inflates(content: bytes) -> bool:
    try:
        return b"MONOCHROME2" in zlib.decompress(content, -15)
    except zlib.error:
        return False


class HangError(BaseException):
    """An input took so long that it was given up."""


@dataclass(kw_only=True)
class Bench:
    """A folder with a cohort of one or two files, and what is watched while it is read."""

    work: Path
    neighbour: bytes
    strayed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.work / "key").write_text("a key for comparisons only\n")
        sys.addaudithook(self._watch)

    def read(self, content: bytes, *, beside: bool) -> tuple[str, str]:
        """Return "result", "refused" or "violation", and the line or the reason."""
        for folder in ("cohort", "out"):
            shutil.rmtree(self.work / folder, ignore_errors=True)
        (self.work / "cohort").mkdir()
        (self.work / "cohort" / "0.dcm").write_bytes(content)
        if beside:
            (self.work / "cohort" / "1.dcm").write_bytes(self.neighbour)
        said, errors = io.StringIO(), io.StringIO()
        arguments = [f"--{name}={self.work / name}" for name in ("cohort", "out")]
        arguments += [f"--pseudonym-key={self.work / 'key'}"]
        self.strayed.clear()
        start = time.monotonic()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors), alarm(3 * MOST_SECONDS):
                status = slicestream(["preprocess", *arguments])
        except (Exception, HangError) as error:
            traceback.print_exc(file=errors)
            return "violation", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}\n{errors.getvalue()}"
        return self._judged(status, errors.getvalue(), time.monotonic() - start)

    def _judged(self, status: int, errors: str, seconds: float) -> tuple[str, str]:
        out = sorted(path.name for path in (self.work / "out").iterdir()) if (self.work / "out").exists() else []
        lines = [line for line in errors.splitlines() if line.startswith("slicestream preprocess: ")]
        if seconds > MOST_SECONDS:
            return "violation", f"{seconds:.1f} s"
        if self.strayed:
            return "violation", f"wrote {self.strayed}"
        if status == 0 and len([name for name in out if name.endswith(".volume")]) >= 1:
            return "result", ""
        if status == 2 and len(lines) == 1 and errors.endswith(f"{lines[0]}\n") and not out:
            return "refused", lines[0].removeprefix("slicestream preprocess: ")
        return "violation", f"status {status}, {len(lines)} lines, files {out}: {errors}"

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        # what this process opens to write to, makes or renames, anywhere
        paths = arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]
        writes = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if not writes and event not in ("os.rename", "os.link", "os.symlink", "os.mkdir"):
            return
        for path in paths:
            inside = isinstance(path, int) or Path(os.fsdecode(path)).is_relative_to(self.work)
            if not inside and os.fsdecode(path) != os.devnull and "__pycache__" not in os.fsdecode(path):
                self.strayed.append(f"{event} {os.fsdecode(path)}")


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise HangError in the block after that many seconds."""

    def hung(*_: object) -> None:
        raise HangError(f"over {seconds:g} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def kind_of(line: str) -> str:
    """Return a refusal without what is particular: paths, values, numbers."""
    text = re.sub(r"^[^:]*?(/[^:]*)+: ?", "", line)
    text = re.sub(r"'[^']*'|\[[^]]*\]", "", text.split(";")[0].split(" (")[0])
    return " ".join(re.sub(r"[-+]?\d[\w.]*", "#", text).split())[:60]


def run(args: argparse.Namespace) -> int:
    """Read all inputs, print the table; return 1 where there is a violation."""
    made = seeds()
    names, layouts = sorted(made), {name: layout_of(content) for name, content in made.items()}
    good = io.BytesIO()
    places = {"ImagePositionPatient": [0, 0, 7.5], "SOPInstanceUID": "1.2.826.0.1.3680043.10.1.4"}
    plain_slice(**places).save_as(good, enforce_file_format=True)
    outcomes: Counter[tuple[str, str]] = Counter()
    refusals: Counter[str] = Counter()
    violations, slowest, began = [], 0.0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        bench = Bench(work=Path(folder).resolve(), neighbour=good.getvalue())
        unharmed = {name: bench.read(made[name], beside=False)[0] for name in names}  # and what is imported late
        for index in [args.only] if args.only is not None else range(args.inputs):
            rng = np.random.default_rng([args.seed, index])
            name = names[index % len(names)]
            kind, content = mutated(name, made[name], layouts[name], rng)
            start = time.monotonic()
            outcome, reason = bench.read(content, beside=index % 3 == 0)
            slowest = max(slowest, time.monotonic() - start)
            outcomes[name, outcome] += 1
            refusals[kind_of(reason)] += outcome == "refused"
            if outcome == "violation":
                violations.append((index, name, kind, reason))
                print(f"input {index} ({name}, {kind}): {reason if args.only is not None else reason.splitlines()[0]}")
            elif args.only is not None:
                print(f"input {index} ({name}, {kind}): {outcome} {reason}")
    peak = print_table(outcomes, refusals, unharmed, violations)
    print(f"slowest input {slowest:.1f} s, {time.monotonic() - began:.0f} s in all")
    return int(bool(violations) or peak > MOST_BYTES)


def print_table(
    outcomes: Counter[tuple[str, str]], refusals: Counter[str], unharmed: dict[str, str], violations: list[Any]
) -> int:
    """Print the outcomes; return the peak memory of this process and its child together, in bytes."""
    print("| made from | as it is | inputs | results | refused in one line | violations |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, first in [*unharmed.items(), ("all", "")]:
        row = [sum(n for (of, what), n in outcomes.items() if name in (of, "all") and what == k) for k in KINDS]
        print(f"| {name} | {first} | {sum(row)} | {row[0]} | {row[1]} | {row[2]} |")
    print(f"\n{len(refusals)} kinds of refusal, the most frequent:")
    for text, count in refusals.most_common(12):
        print(f"{count:>7}  {text}")
    limits = sum(n for text, n in refusals.items() if text.startswith(("the decoder", "decoding its pixels")))
    print(f"{limits:>7}  of all: the decoder crashed or was stopped at a limit, and another was started")
    shared_decoder().close()
    own, child = (resource.getrusage(who).ru_maxrss << 10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"\n{len(violations)} violations; peak memory {own / 1e6:.0f} MB, of the decoder {child / 1e6:.0f} MB")
    return own + child


KINDS = ("result", "refused", "violation")


def main() -> int:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="number of one input, to see it again")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    return run(args)


if __name__ == "__main__":
    sys.exit(main())
