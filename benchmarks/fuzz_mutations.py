"""How `fuzz.py` damages a DICOM file: bytes, elements, codestreams, one or two damages at a time."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

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
