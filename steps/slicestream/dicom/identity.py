"""The identity map: for each pseudonym the pixel-less headers of its slices. It never leaves the laptop.

A deflated ZIP (mode 0600) of `index.json` and one Part 10 file per slice, `<patient>-<series>/<k>.dcm`, k = index of
the slice in the volume. The headers hold the real origin (ImagePositionPatient) and all that a DICOM SEG copies.
"""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from slicestream.dicom.files import one_line
from slicestream.errors import ArtefactError, StudyError
from slicestream.volumes.volume import SeriesId

FORMAT = 1
_INDEX = "index.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_IMPLEMENTATION = UID("2.25.309862385317171717171717171717171717171")


def part10_files(headers: Sequence[Dataset], sources: Sequence[str], encoded: Sequence[bytes]) -> list[bytes]:
    """Return each pixel-less header as a file; `encoded` is it as it stood in its file, if empty it is encoded anew.

    Compressed and big-endian ones become Explicit VR Little Endian. Raises StudyError naming one of `sources`.
    """
    return [_file(*each) for each in zip(headers, sources, encoded, strict=True)]


class IdentityWriter:
    """Writes one identity map, series by series; `close` it by leaving the `with` block."""

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        self._entries: list[dict[str, object]] = []

    def add(self, series: SeriesId, files: Sequence[bytes], sources: Sequence[str]) -> None:
        """Add what `part10_files` made, in the slice order of the volume; `sources` are the names in the cohort."""
        for index, content in enumerate(files):
            self._archive.writestr(self._entry(f"{series}/{index:05d}.dcm"), content)
        entry = {"patient": series.patient, "series": series.series, "slices": len(files), "sources": list(sources)}
        self._entries.append(entry)

    def __enter__(self) -> IdentityWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                text = json.dumps({"format": FORMAT, "series": self._entries}, indent=1, ensure_ascii=False)
                self._archive.writestr(self._entry(_INDEX), text)
        finally:
            self._archive.close()

    @staticmethod
    def _entry(name: str) -> zipfile.ZipInfo:
        entry = zipfile.ZipInfo(name, _EPOCH)
        entry.external_attr = 0o600 << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        return entry


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    path: Path
    slices: int


class Identities(Mapping[str, list[Dataset]]):
    """`<patient>-<series>` → headers in the slice order of the volume, read when they are asked for."""

    def __init__(self, places: Mapping[str, _Place]) -> None:
        self._places = dict(places)

    def __getitem__(self, series: str) -> list[Dataset]:
        place = self._places[series]
        try:
            with zipfile.ZipFile(place.path) as archive:
                return [dcmread(io.BytesIO(archive.read(f"{series}/{index:05d}.dcm"))) for index in range(place.slices)]
        except (OSError, KeyError, zipfile.BadZipFile, zlib.error, InvalidDicomError, EOFError) as error:
            raise ArtefactError(
                f"{place.path}: headers of {series} cannot be read ({error}). Preprocess again."
            ) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def read_identities(paths: Iterable[Path]) -> Identities:
    """Open identity maps. Raises ArtefactError where one is damaged, not ours, or names a series twice."""
    places: dict[str, _Place] = {}
    for path in paths:
        for series, slices in _read_index(path):
            if series in places:
                raise ArtefactError(
                    f"{path}: series {series} is in {places[series].path.name} too; need each once. "
                    "Give the identity maps of one preprocessing only."
                )
            places[series] = _Place(path=path, slices=slices)
    return Identities(places)


def _read_index(path: Path) -> list[tuple[str, int]]:
    try:
        with zipfile.ZipFile(path) as archive:
            document = json.loads(archive.read(_INDEX))
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']}")
        return [
            (str(SeriesId(patient=entry["patient"], series=entry["series"])), int(entry["slices"]))
            for entry in document["series"]
        ]
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ArtefactError(
            f"{path}: not a readable identity map ({error}); need a .identity file. Preprocess again."
        ) from error


def _file(header: Dataset, source_name: str, encoded: bytes) -> bytes:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if any(tag >> 16 in (0, 2) for tag in header.keys()):  # noqa: SIM118
                raise ValueError("elements of group 0000 or 0002 in it")
            implicit = bool(header.original_encoding[0])
            syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
            meta = _meta(header.SOPClassUID, header.SOPInstanceUID, syntax)
            preamble = getattr(header, "preamble", None) or bytes(128)
            return b"".join((preamble, b"DICM", meta, encoded or _encoded(header, implicit=implicit)))
    except Exception as error:  # a damaged element may fail in any way
        reason = one_line(str(error))
        raise StudyError(f"{source_name}: header cannot be kept ({reason}); damaged. Fetch it again.") from error


def _meta(sop_class: str, instance: str, syntax: str) -> bytes:
    """Return the file meta information (PS3.10 7.1)."""
    content = struct.pack("<HH2sxxI2s", 2, 1, b"OB", 2, b"\0\1")
    for number, uid in ((0x02, sop_class), (0x03, instance), (0x10, syntax), (0x12, _IMPLEMENTATION)):
        value = uid.encode("ascii") + b"\0" * (len(uid) % 2)
        content += struct.pack("<HH2sH", 2, number, b"UI", len(value)) + value
    return struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(content)) + content


def _encoded(header: Dataset, *, implicit: bool) -> bytes:
    if header.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:
        header = _little_endian(header)
    target = DicomBytesIO()
    target.is_implicit_VR, target.is_little_endian = implicit, True
    write_dataset(target, header)
    return target.getvalue()


def _little_endian(header: Dataset) -> Dataset:
    """Return the header with no value left in the byte order of its file; pydicom converts all but words."""
    for element in header.iterall():
        if element.VR == "OW" and isinstance(element.value, bytes):
            swapped = bytearray(element.value)
            swapped[::2], swapped[1::2] = element.value[1::2], element.value[::2]
            element.value = bytes(swapped)
    return Dataset({tag: header[tag] for tag in header.keys()})  # noqa: SIM118
