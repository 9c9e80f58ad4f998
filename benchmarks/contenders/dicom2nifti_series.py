"""dicom2nifti: each folder that holds a series to a .nii.gz.

python dicom2nifti_series.py COHORT OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import dicom2nifti
from stopwatch import timed

cohort, out = Path(sys.argv[1]), Path(sys.argv[2])
folders = sorted({path.parent for path in cohort.rglob("*.dcm")})
with timed(sum(1 for _ in cohort.rglob("*.dcm"))):
    for number, folder in enumerate(folders):
        dicom2nifti.dicom_series_to_nifti(folder, out / f"{number}.nii.gz", reorient_nifti=False)
