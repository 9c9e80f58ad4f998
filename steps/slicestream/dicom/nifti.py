"""Volumes and masks as NIfTI in patient space."""

from __future__ import annotations

import errno
import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from slicestream import RESEARCH_ONLY
from slicestream.volumes.files import atomic_path
from slicestream.volumes.geometry import Geometry


def write_nifti(path: Path, voxels: NDArray[Any], geometry: Geometry, origin_lps_mm: Sequence[float]) -> None:
    """Write (slice, row, column) voxels as .nii.gz, first voxel's centre at `origin_lps_mm`. Raises OutputError."""
    image: Any = SimpleITK.GetImageFromArray(voxels)  # axes (slice, row, column) become ITK's (column, row, slice)
    image.SetSpacing([float(mm) for mm in reversed(geometry.spacing_mm)])
    # ITK works in LPS as DICOM does; the columns of its direction are the axes. SimpleITK turns it to NIfTI's RAS.
    image.SetDirection(np.array(geometry.direction_lps[::-1], np.float64).T.ravel().tolist())
    image.SetOrigin([float(mm) for mm in origin_lps_mm])
    image.SetMetaData("descrip", RESEARCH_ONLY)
    with atomic_path(path) as partial:
        named = partial.with_name(f"{partial.name}.nii.gz")  # the writer goes by the ending
        try:
            SimpleITK.WriteImage(image, str(named), useCompression=True)
            _check_whole(named, voxels.nbytes)
            named.replace(partial)
        except (RuntimeError, EOFError, zlib.error) as error:
            raise OSError(errno.ENOSPC, "could not be written whole (disk full?)") from error
        finally:
            named.unlink(missing_ok=True)


def _check_whole(path: Path, voxel_bytes: int) -> None:
    """Raise EOFError where less was written than there is: on a full disk the writer says so, but does not fail."""
    size = 0
    with gzip.open(path) as file:
        while part := file.read(1 << 22):
            size += len(part)
    if size < voxel_bytes:
        raise EOFError(f"{size} of {voxel_bytes} bytes")
