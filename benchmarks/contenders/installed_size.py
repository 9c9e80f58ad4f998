"""How many MB the given distributions and all that they need take in an image: installed here, less what slim removes.

python installed_size.py [--with FOLDER] SLIM REQUIREMENT...
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from stopwatch import tell


def needed(requirement: Requirement, seen: dict[str, list[tuple[str, Path]]]) -> None:
    """Note a distribution's files (place in site-packages, path) and, for the extras asked for, those that it needs."""
    found = distribution(requirement.name)
    name = canonicalize_name(found.metadata["Name"])
    if name not in seen:
        seen[name] = [(str(file), Path(str(file.locate()))) for file in found.files or () if ".." not in file.parts]
        for other in map(Requirement, found.requires or ()):
            if other.marker is None or any(other.marker.evaluate({"extra": e}) for e in {"", *requirement.extras}):
                needed(other, seen)


def slimmed_bytes(files: list[tuple[str, Path]], slim: str) -> int:
    """Return the bytes that are left of the files where `slim` has been."""
    with TemporaryDirectory(dir=Path(sys.prefix)) as site:  # the same disk: links, no copies
        for place, path in files:
            if path.is_file():
                link = Path(site, place)
                link.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, link)
        subprocess.run(["sh", slim, site], check=True)
        return sum(path.stat().st_size for path in Path(site).rglob("*") if path.is_file())


words, own = sys.argv[1:], 0
if words[0] == "--with":
    own = sum(path.stat().st_size for path in Path(words[1]).rglob("*.py"))
    words = words[2:]
distributions: dict[str, list[tuple[str, Path]]] = {}
for word in words[1:]:
    needed(Requirement(word), distributions)
megabytes = (own + slimmed_bytes([file for files in distributions.values() for file in files], words[0])) / 1e6
tell(1.0, megabytes, mb=megabytes, packages=len(distributions))  # no time is taken: the "speed" is the size
