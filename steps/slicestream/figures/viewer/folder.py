"""The viewer's folder: flat, few files, opened by a double click on index.html."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from slicestream import RESEARCH_ONLY
from slicestream.volumes.files import write_text

ASSETS = ("index.html", "viewer.css", "viewer.js", "voxels.js", "niivue.js", "niivue-licences.txt")


def write_assets(folder: Path) -> None:
    """Write what is the same in every run: the page, its style, its script and NiiVue with its licences."""
    source = files("slicestream.figures.viewer") / "assets"
    for name in ASSETS:
        write_text(folder / name, (source / name).read_text(encoding="utf-8"))


def write_index(path: Path, series: list[dict[str, Any]], left_out: list[str], most_mb: float) -> str:
    """Write the list of series as a script; return the SHA-256 of its text."""
    index = {"series": series, "left_out": left_out, "most_mb": most_mb, "notice": RESEARCH_ONLY}
    text = f"const SERIES = {json.dumps(index, separators=(',', ':'))};\n"
    write_text(path, text)
    return hashlib.sha256(text.encode()).hexdigest()
