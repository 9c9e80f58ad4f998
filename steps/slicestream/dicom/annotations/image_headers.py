"""What the headers of NIfTI, MetaImage and NRRD files say that must be known before the library reads the voxels.

The library takes a header without a place for one at (0, 0, 0), mixes two orientations that disagree, and opens any
other file that a header names. None of that may happen to a mask.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from slicestream.errors import AnnotationError

_MOST_HEADER = 1 << 16  # bytes
_NRRD_SPACES = (
    "left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las",
)  # fmt: skip
_NIFTI_1, _NIFTI_2 = 348, 540  # bytes of their headers; ITK 5.4 reads the first
_NIFTI_FLOATS = (16, 64)  # datatype codes of float32 and float64
_AT_ONCE = 1 << 22  # bytes; whole voxels
_AGREE = 0.1  # of the smallest voxel size, over the whole image


@dataclass(frozen=True, kw_only=True, slots=True)
class NiftiHeader:
    """What a NIfTI-1 header says; `affines` (4, 4) from index (i, j, k, 1) to mm in RAS, by name."""

    affines: dict[str, NDArray[np.float64]]
    voxels: np.dtype[np.void]
    offset: int


def read_nifti_header(path: Path) -> NiftiHeader:
    """Return the header. Raises AnnotationError where there is none."""
    with _opened(path) as file:
        header = file.read(_NIFTI_1)
    sizes = {order: struct.unpack_from(f"{order}i", header)[0] for order in "<>"} if len(header) == _NIFTI_1 else {}
    order = next((order for order, size in sizes.items() if size == _NIFTI_1), "")
    if not order:
        found = "NIfTI-2" if _NIFTI_2 in sizes.values() else "no NIfTI image"
        raise AnnotationError(f"{path}: {found}; need NIfTI-1 (a header of {_NIFTI_1} bytes). Convert it.")
    kind, bits = struct.unpack_from(f"{order}2h", header, 70)
    pixdim, forms = (struct.unpack_from(f"{order}{n}f", header, at) for n, at in ((8, 76), (18, 256)))
    qform_code, sform_code = struct.unpack_from(f"{order}2h", header, 252)
    (start,) = struct.unpack_from(f"{order}f", header, 108)
    affines = {"qform": _qform(forms, pixdim)} if qform_code > 0 else {}
    if sform_code > 0:
        affines["sform"] = np.vstack((np.reshape(forms[6:], (3, 4)), (0.0, 0.0, 0.0, 1.0)))
    # of the types only those matter that can hold what is no number
    code = f"f{bits // 8}" if kind in _NIFTI_FLOATS else f"V{max(bits // 8, 1)}"
    return NiftiHeader(affines=affines, voxels=np.dtype(f"{order}{code}"), offset=int(start))


def check_nifti_place(
    path: Path, header: NiftiHeader, size: tuple[int, ...], affine_lps_mm: NDArray[np.float64]
) -> None:
    """Raise AnnotationError where qform and sform say no place, or another than `affine_lps_mm` (4, 4), as was read."""
    if not header.affines:
        raise AnnotationError(
            f"{path}: qform_code and sform_code are 0, so it does not say where it lies; need one of them. "
            "Write it again from the series that it was drawn on."
        )
    corners = np.array([[x, y, z, 1.0] for x in (0, size[0] - 1) for y in (0, size[1] - 1) for z in (0, size[2] - 1)])
    voxel_mm = np.linalg.norm(affine_lps_mm[:3, :3], axis=0).min()
    to_lps = np.diag((-1.0, -1.0, 1.0, 1.0))  # NIfTI's axes run to the right and to the front
    for name, affine in header.affines.items():
        off = np.abs(corners @ (to_lps @ affine - affine_lps_mm).T).max()
        if not off <= _AGREE * voxel_mm:
            raise AnnotationError(
                f"{path}: {' and '.join(header.affines)} with pixdim put its voxels up to {off:.2f} mm apart ({name}); "
                "need one place. Make qform and sform the same, without shear."
            )


def check_nifti_voxels(path: Path, header: NiftiHeader, count: int) -> None:
    """Raise AnnotationError where the file holds fewer voxels than `count`, or one that is no number.

    The library reads both as 0.
    """
    left = count * header.voxels.itemsize
    with _opened(path) as file:
        file.read(header.offset)
        while left > 0:
            part = file.read(min(left, _AT_ONCE))
            if len(part) < min(left, _AT_ONCE):
                raise AnnotationError(f"{path}: {left - len(part)} bytes of its voxels are missing. Fetch it again.")
            left -= len(part)
            if header.voxels.kind == "f" and not np.isfinite(np.frombuffer(part, header.voxels)).all():
                raise AnnotationError(f"{path}: holds a value that is no number; need 0 and 1 only. Convert it.")
        file.read(_AT_ONCE)  # to its end, for the checksum there


def check_metaimage(path: Path) -> None:
    """Raise AnnotationError where the header gives no place, or names a file outside its folder."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while "ElementDataFile" not in fields:
            line = file.readline(_MOST_HEADER)
            found = re.fullmatch(rb"\s*(\w+)\s*=\s*(.*?)\s*", line)
            if not found or file.tell() > _MOST_HEADER:
                raise AnnotationError(
                    f"{path}: header of a MetaImage that is none; need lines 'Name = value' up to ElementDataFile. "
                    "Write it again."
                )
            fields[found[1].decode("ascii", "replace")] = found[2].decode("utf-8", "replace")
    if not {"Offset", "Position", "Origin"} & fields.keys():
        raise AnnotationError(
            f"{path}: no Offset, so it does not say where it lies; need Offset and TransformMatrix. "
            "Write it again from the series that it was drawn on."
        )
    name = fields["ElementDataFile"]
    if name.upper() != "LOCAL" and (name.upper().startswith("LIST") or "%" in name or not _beside(path, name)):
        raise AnnotationError(
            f"{path}: its voxels stand in '{name[:80]}'; need one file in the same folder, or LOCAL. "
            "Convert it to .mha or .nii.gz."
        )


def check_nrrd(path: Path) -> None:
    """Raise AnnotationError where the header gives no place, or names another file."""
    with path.open("rb") as file:
        lines = file.read(_MOST_HEADER).split(b"\n\n")[0].split(b"\r\n\r\n")[0].splitlines()
    fields = [line.partition(b":") for line in lines[1:] if not line.startswith(b"#")]
    values = {
        name.strip().lower().decode("ascii", "replace"): value.strip().decode("utf-8", "replace")
        for name, _, value in fields
    }
    if {"data file", "datafile"} & values.keys():
        raise AnnotationError(f"{path}: its voxels stand in another file; need them within. Convert it to .nrrd.")
    space = values.get("space", "")
    if space.lower() not in _NRRD_SPACES or "space origin" not in values or "space directions" not in values:
        raise AnnotationError(
            f"{path}: space '{space[:40]}' with origin '{values.get('space origin', '')[:40]}' does not say where it "
            "lies; need space (LPS, RAS or LAS), space directions and space origin. Write it again."
        )


def _beside(path: Path, name: str) -> bool:
    other = path.parent / name
    return "\0" not in name and other.is_file() and other.resolve().parent == path.parent.resolve()


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.name.lower().endswith(".gz") else path.open("rb")


def _qform(forms: tuple[float, ...], pixdim: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the affine of a quaternion (method 2 of nifti1.h)."""
    b, c, d = forms[:3]
    a = math.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn * np.array([pixdim[1], pixdim[2], pixdim[3] * (-1.0 if pixdim[0] < 0 else 1.0)])
    affine[:3, 3] = forms[3:6]
    return affine
