"""Ours: `slicestream infer`, all of it: read the volume, prepare, run the network, lungs, candidates, write the mask.

python our_inference.py MODEL VOLUME REFERENCE OUT
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from stopwatch import tell

import slicestream.infer  # noqa: F401  imported before the time is taken, as the peers' libraries are
from slicestream.__main__ import main
from slicestream.volumes.mask import read_mask

model, volume, reference, out = map(Path, sys.argv[1:])
known = np.load(reference)["mask"]
begin = time.perf_counter()
assert main(["infer", *map(str, ("--model", model, "--volumes", volume, "--out", out))]) == 0
seconds = time.perf_counter() - begin
(path,) = out.glob("*.mask")
found = read_mask(path, "mask").labels > 0
iou = float((found & known).sum() / (found | known).sum())
tell(seconds, len(known) / 300, iou=iou)
