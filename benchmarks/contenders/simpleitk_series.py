"""SimpleITK: each folder that holds a series, by its series reader, to a .nii.gz.

python simpleitk_series.py COHORT OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import SimpleITK
from stopwatch import timed

cohort, out = Path(sys.argv[1]), Path(sys.argv[2])
folders = sorted({path.parent for path in cohort.rglob("*.dcm")})
with timed(sum(1 for _ in cohort.rglob("*.dcm"))):
    for number, folder in enumerate(folders):
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        SimpleITK.WriteImage(reader.Execute(), str(out / f"{number}.nii.gz"))
