"""Volumes and masks as NIfTI in patient space."""

from __future__ import annotations

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
            named.replace(partial)
        except RuntimeError as error:
            raise OSError(5, str(error).strip().splitlines()[-1]) from error
        finally:
            named.unlink(missing_ok=True)
