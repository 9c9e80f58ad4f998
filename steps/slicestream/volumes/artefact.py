"""The one container of all array artefacts: a stored ZIP of `header.json` and, per array, a Blosc2 chunk per slice.

Like .npz, with a codec that keeps up with the disk. Times and names of the writer are not in it, so the same
content gives the same bytes. The content hash is of the meaning (kind, header, each array's name, type, shape and
voxels), not of the codec's bytes; `read_artefact` checks it.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import blosc2
import numpy as np
from numpy.typing import NDArray

from slicestream.errors import ArtefactError
from slicestream.volumes.files import atomic_path

Header = dict[str, Any]
AnyArray = NDArray[Any]

_FORMAT, _MEANING = 2, 1  # of the file; of what is hashed, so that content keeps its hash in another format
_HEADER = "header.json"
_CODEC = {"codec": blosc2.Codec.ZSTD, "clevel": 1, "filters": [blosc2.Filter.BITSHUFFLE], "nthreads": 1}
_CHUNK_HEADER, _FLAGS_AT, _PLAIN_FLAGS = 32, 31, 0x70  # none but for equal values: others lead outside
_EPOCH = (1980, 1, 1, 0, 0, 0)  # ZIP's earliest time: the real one is nobody's business
_MAX_HEADER_BYTES = 64 << 20
_MAX_ARRAY_BYTES = 64 << 30
blosc2.set_releasegil(True)
# what zipfile, json and blosc2 raise on damaged bytes
_BROKEN = (
    *(KeyError, ValueError, TypeError, OverflowError, RuntimeError, NotImplementedError, EOFError, OSError),
    *(zipfile.BadZipFile, zlib.error, struct.error, MemoryError),
)
_DTYPES = ("int16", "uint8", "uint16", "float32")


class Sliced(Protocol):
    """An array, or what gives its slices in order; a slice may lie where the one before the last lay."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of three axes or more where it is no array."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """As of an array."""
        ...

    def __iter__(self) -> Iterator[AnyArray]:
        """Yield the slices, or whatever else lies along the first axis."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Artefact:
    """A header and its arrays, with the hash of their content (64 hex digits)."""

    kind: str
    header: Header
    arrays: Mapping[str, AnyArray]
    content_hash: str


def content_hash(kind: str, header: Header, arrays: Mapping[str, Sliced]) -> str:
    """Return SHA-256 over kind, canonical header and, by name, each array's type, shape and little-endian voxels."""
    digest = _hash_of(kind, header)
    for name in sorted(arrays):
        digest.update(_named(name, arrays[name]))
        for part in _parts(arrays[name]):
            digest.update(part.data.cast("B"))
    return digest.hexdigest()


def write_artefact(path: Path, kind: str, header: Header, arrays: Mapping[str, Sliced], *, mode: int = 0o644) -> str:
    """Write whole or not at all; return the content hash. Raises OutputError."""
    header = json.loads(json.dumps(header))  # what is hashed is what a reader will see
    digest = _hash_of(kind, header)
    with atomic_path(path, mode=mode) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name in sorted(arrays):
            digest.update(_named(name, arrays[name]))
            _pack(archive, name, arrays[name], digest)
        sealed, listed = digest.hexdigest(), {name: _described(array) for name, array in arrays.items()}
        document = {"kind": kind, "format": _FORMAT, "content_hash": sealed, "arrays": listed, "header": header}
        archive.writestr(zipfile.ZipInfo(_HEADER, _EPOCH), json.dumps(document, sort_keys=True, indent=1))
    return sealed


def read_artefact(path: Path, kind: str) -> Artefact:
    """Read and check. Raises ArtefactError where the file is damaged, of another kind or not ours."""
    with _opened(path) as archive:
        document = _document(archive, path, kind)
        arrays = {name: _decompress(archive, path, name, spec) for name, spec in document["arrays"].items()}
    found = content_hash(kind, document["header"], arrays)
    if found != document["content_hash"]:
        raise ArtefactError(
            f"{path}: content hash {found[:12]}…, but {str(document['content_hash'])[:12]}… was sealed in it; "
            "the file was changed or damaged on the way. Make or fetch it again."
        )
    return Artefact(kind=kind, header=document["header"], arrays=arrays, content_hash=found)


def read_header(path: Path, kind: str) -> tuple[Header, str]:
    """Return header and content hash as written, without reading (or checking) the arrays. Raises ArtefactError."""
    with _opened(path) as archive:
        document = _document(archive, path, kind)
    return document["header"], str(document["content_hash"])


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _described(array: Sliced) -> dict[str, Any]:
    return {"dtype": array.dtype.name, "shape": list(array.shape)}


def _named(name: str, array: Sliced) -> bytes:
    return _canonical({"name": name, **_described(array)})


def _hash_of(kind: str, header: Header) -> hashlib._Hash:
    return hashlib.sha256(_canonical({"kind": kind, "format": _MEANING, "header": header}))


def _parts(array: Sliced) -> Iterator[AnyArray]:
    """Yield an array slice by slice, each little-endian in one piece; those without voxels are left out."""
    for part in array if len(array.shape) > 2 else (np.asarray(array),):
        if part.size:
            yield np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("<"))


def _pack(archive: zipfile.ZipFile, name: str, array: Sliced, digest: hashlib._Hash) -> None:
    """Write an array and put it into the hash. While a slice is packed, the next one is fetched or decoded."""

    def packed(part: AnyArray) -> bytes:
        digest.update(part.data.cast("B"))
        return bytes(blosc2.compress2(part, typesize=part.itemsize, blocksize=part.nbytes, **_CODEC))

    member = zipfile.ZipInfo(f"{name}.blosc2", _EPOCH)
    member.file_size = math.prod(array.shape) * array.dtype.itemsize  # at most: by it ZIP chooses the width of sizes
    with archive.open(member, "w") as stream, ThreadPoolExecutor(1) as packer:
        running: deque[Future[bytes]] = deque()
        for part in _parts(array):
            running.append(packer.submit(packed, part))
            if len(running) > 1:
                stream.write(running.popleft().result())
        for last in running:
            stream.write(last.result())


def _unpack(packed: memoryview, into: AnyArray) -> None:
    at = 0
    for part in into if into.ndim > 2 else (into,):
        if not part.size:
            continue
        start = packed[at : at + _CHUNK_HEADER]
        if len(start) < _CHUNK_HEADER or start[_FLAGS_AT] & ~_PLAIN_FLAGS:
            raise ValueError(f"no chunk at {at} of {len(packed)} bytes")
        size, length, _ = blosc2.get_cbuffer_sizes(start)
        chunk = packed[at : at + length]
        if size != part.nbytes or not _CHUNK_HEADER <= length == len(chunk):
            raise ValueError(f"a chunk of {size} bytes at {at}; need one of {part.nbytes}, and all of it")
        blosc2.decompress2(chunk, dst=part, nthreads=1)
        at += length
    if at != len(packed):
        raise ValueError(f"{len(packed) - at} bytes too many")


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _BROKEN as error:
        raise ArtefactError(
            f"{path}: cannot be opened ({error}); need a file that a SliceStream step wrote. "
            "Check the name, or make it again."
        ) from error


def _document(archive: zipfile.ZipFile, path: Path, kind: str) -> dict[str, Any]:
    try:
        if archive.getinfo(_HEADER).file_size > _MAX_HEADER_BYTES:
            raise ValueError(f"header over {_MAX_HEADER_BYTES} bytes")
        document = json.loads(archive.read(_HEADER))
        found, arrays = document["kind"], document["arrays"]
        if document["format"] != _FORMAT or not isinstance(document["header"], dict) or not isinstance(arrays, dict):
            raise ValueError("unknown format")
    except _BROKEN as error:
        raise ArtefactError(
            f"{path}: no readable header ({error}); need a {kind} file. Make or fetch it again."
        ) from error
    if found != kind:
        raise ArtefactError(f"{path}: holds a {found}; need a {kind}. Check which file goes to which input.")
    return dict(document)


def _decompress(archive: zipfile.ZipFile, path: Path, name: str, spec: Mapping[str, Any]) -> AnyArray:
    try:
        shape, dtype = tuple(int(n) for n in spec["shape"]), str(spec["dtype"])
        if dtype not in _DTYPES or min(shape, default=0) < 0:
            raise ValueError(f"type {dtype}, shape {shape}")
        size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        if size > _MAX_ARRAY_BYTES:
            raise ValueError(f"{size} bytes announced")
        array = np.empty(shape, dtype)
        _unpack(memoryview(archive.read(f"{name}.blosc2")), array)  # ZIP's CRC is checked here
    except _BROKEN as error:
        raise ArtefactError(
            f"{path}: array '{name}' cannot be read ({error}). Make or fetch the file again."
        ) from error
    return array
