"""The paper's recipe: each slice with pydicom, modality LUT, the lung window as VOI LUT, 8 bits, a PNG.

python paper_preprocess.py COHORT OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import PIL.Image
from pydicom import dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from stopwatch import timed

cohort, out = Path(sys.argv[1]), Path(sys.argv[2])
paths = sorted(cohort.rglob("*.dcm"))
with timed(len(paths)):
    for number, path in enumerate(paths):
        image = dcmread(path)
        image.WindowCenter, image.WindowWidth = -500, 1600
        shown = apply_voi_lut(apply_modality_lut(image.pixel_array, image), image)
        low, high = shown.min(), shown.max()
        grey = ((shown - low) / max(high - low, 1) * 255).astype(np.uint8)
        PIL.Image.fromarray(grey).save(out / f"{number:05d}.png")
