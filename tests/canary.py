"""Marks in every place of a cohort that could tell who a patient is, and a search for them in what left the laptop."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import blosc2
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

WORD = "QUOKKA7"
UID = "1.2.826.0.1.3680043.10.1.424242"
DATE = "19170403"
NUMBER = "417.2519"  # of the real origin, mm
PLAIN = (WORD, UID, DATE, NUMBER)
MOST_PACKED = 1 << 24  # bytes of a file that are looked through for packed members
NAMES = [
    *("PatientName", "PatientID", "AccessionNumber", "StudyID", "InstitutionName", "StudyDescription", "StationName"),
    *("SeriesDescription", "OtherPatientIDs", "PatientComments", "ReferringPhysicianName", "OperatorsName"),
    *("RequestedProcedureDescription", "ProtocolName", "DeviceSerialNumber"),
]
DATES = ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")


def plant(cohort: Path, marked: Path) -> set[str]:
    """Copy a UniToChest cohort with marks in headers, overlays, spare bits, names and table; return what identifies."""
    with (cohort / "dataset.csv").open(newline="") as text:
        rows = list(csv.DictReader(text))
    identities: set[str] = set()
    for number, row in enumerate(rows):
        row["patientID"] = f"{WORD}csv{row['patientID']}"
        for kind in ("image", "mask"):
            if row[kind]:
                old = Path(row[kind])
                row[kind] = str(Path(*(f"{WORD}{part}" for part in old.parts)))
                (marked / row[kind]).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(cohort / old, marked / row[kind])
        values = mark_header(marked / row["image"], number) | {row["image"], Path(row["image"]).name}
        if row["patientID"] not in identities:  # of each patient one file's values are enough to look for as hashes
            identities |= values | {row["patientID"]}
    with (marked / "dataset.csv").open("w", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return identities


def mark_header(path: Path, number: int) -> set[str]:
    """Put marks into one file; return its identifying values. Those of a patient or series stay one over its files."""
    image = dcmread(path)
    patient = image.PatientID
    for name in NAMES:
        setattr(image, name, f"{WORD}{name[:4]}{patient[-4:]}")
    for name in DATES:
        setattr(image, name, DATE)
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(image, name, f"{UID}.{zlib.crc32(getattr(image, name).encode())}")
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{UID}.9.{number}"
    image.add_new(0x00090010, "LO", f"{WORD} PRIVATE")
    image.add_new(0x00091001, "UN", WORD.encode() * 20)
    inner = Dataset()
    inner.PatientID = f"{WORD}inner"
    image.OtherPatientIDsSequence = [inner]
    _, y, z = image.ImagePositionPatient
    image.ImagePositionPatient = [NUMBER, y, z]
    if not image.file_meta.TransferSyntaxUID.is_compressed and image.BitsStored < 16:
        pixels = np.frombuffer(image.PixelData, "<u2")
        letters = np.resize(np.frombuffer(WORD.encode(), np.uint8), pixels.size).astype("<u2")
        low = np.uint16((1 << image.BitsStored) - 1)
        image.PixelData = ((pixels & low) | (letters << image.BitsStored).astype("<u2")).tobytes()
    image.add_new(0x60000010, "US", 16)
    image.add_new(0x60003000, "OW", (WORD.encode() * 6)[:32])
    image.save_as(path)
    values = {str(getattr(image, name)) for name in (*NAMES, "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    return values | {DATE}


def needles(identities: set[str]) -> dict[bytes, str]:
    """Return every spelling to look for, with what it is."""
    found: dict[bytes, str] = {}
    for word in PLAIN:
        plain = word.encode()
        for text in (plain, plain.lower(), plain.hex().encode(), plain.hex().upper().encode()):
            found[text] = f"{word} as text or hex"
        for order in ("utf-16-le", "utf-16-be"):
            found[word.encode(order)] = f"{word} in {order}"
        for shift in range(3):
            coded = base64.b64encode(b"\0" * shift + plain + b"\0" * 3)
            first, last = -(-8 * shift // 6), 8 * (shift + len(plain)) // 6
            found[coded[first:last]] = f"{word} in base64"
    for identity in identities:
        for name in ("md5", "sha1", "sha256"):
            digest = hashlib.new(name, identity.encode())
            found[digest.hexdigest()[:16].encode()] = f"{name} of {identity}"
            found[digest.digest()[:8]] = f"{name} of {identity}, raw"
    return found


def search(data: bytes, wanted: dict[bytes, str]) -> set[str]:
    """Return what of `wanted` stands in `data`, plain or packed."""
    return {what for layer in unpacked(data) for needle, what in wanted.items() if needle in layer}


def unpacked(data: bytes, depth: int = 3) -> Iterator[bytes]:
    """Yield `data` and what zip, gzip, zlib and Blosc2 members of it hold."""
    yield data.rstrip(b"\0") + b"\0\0"  # logs are laid out in advance
    if not depth:
        return
    for inner in members(data):
        yield from unpacked(inner, depth - 1)


def members(data: bytes) -> Iterator[bytes]:
    """Yield the decompressed members of `data`."""
    if data[:4] == b"PK\3\4":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield archive.read(name)
    whole = memoryview(data)
    for match in re.finditer(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]", data[:MOST_PACKED]):
        try:  # most matches are chance: a little first
            if not zlib.decompressobj(47).decompress(whole[match.start() : match.start() + 4096]):
                continue
            yield zlib.decompressobj(47).decompress(whole[match.start() :])
        except zlib.error:
            continue
    yield b"".join(chunks(whole))


def chunks(data: memoryview) -> Iterator[bytes]:
    """Yield what the Blosc2 chunks hold that `data` begins with, as those of an array follow one another."""
    while len(data) >= 32 and data[0] == 5 and not data[31] & ~0x70:  # version of the format; flags as artefacts have
        length = blosc2.get_cbuffer_sizes(data[:32])[1]
        if not 32 <= length <= len(data):
            return
        yield bytes(blosc2.decompress2(data[:length]))
        data = data[length:]
