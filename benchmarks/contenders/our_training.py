"""Ours: `slicestream train`; images per second of its epochs, their first steps included, as its run record has them.

python our_training.py SIDES RECIPE EPOCHS OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from stopwatch import tell

from slicestream.__main__ import main

sides, recipe, epochs, out = Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
words = ["train", "--recipe", recipe, "--epochs", epochs, "--out", out, "--checkpoints", out / "checkpoints"]
for side in ("training", "validation"):
    words += [f"--{side}", *sorted(sides.glob(f"{side}-*.slices"))]
assert main([str(word) for word in words]) == 0
record = json.loads((out / "train.run.json").read_text())
card = json.loads((out / "model.json").read_text())
images = card["data"]["training"]["slices"] * card["training"]["epochs_run"]
tell(images / record["parameters"]["images_per_second"], images, device=record["device"])
