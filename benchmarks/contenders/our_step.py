"""One of our steps as the command line does it; its imports are not timed.

python our_step.py PATIENTS STEP [flags of the step; @FILE stands for the paths that the file lists]
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from stopwatch import timed

from slicestream.__main__ import main

patients, step, *flags = sys.argv[1:]
importlib.import_module(f"slicestream.{step}")
words = [word for flag in flags for word in (Path(flag[1:]).read_text().split() if flag[0] == "@" else [flag])]
with timed(int(patients)):
    assert main([step, *words]) == 0
