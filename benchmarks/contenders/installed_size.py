"""How many MB the given distributions take here, and all that they need, as their own lists of files say.

python installed_size.py [--with FOLDER] REQUIREMENT...
"""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from stopwatch import tell


def needed(requirement: Requirement, seen: dict[str, int]) -> None:
    """Note the bytes of a distribution and, for the extras asked for, of what it requires in this environment."""
    found = distribution(requirement.name)
    name = canonicalize_name(found.metadata["Name"])
    if name not in seen:
        paths = (Path(str(file.locate())) for file in found.files or ())
        seen[name] = sum(path.stat().st_size for path in paths if path.is_file())
        for other in map(Requirement, found.requires or ()):
            if other.marker is None or any(other.marker.evaluate({"extra": e}) for e in {"", *requirement.extras}):
                needed(other, seen)


words, own = sys.argv[1:], 0
if words[0] == "--with":
    own = sum(path.stat().st_size for path in Path(words[1]).rglob("*.py"))
    words = words[2:]
sizes: dict[str, int] = {}
for word in words:
    needed(Requirement(word), sizes)
megabytes = (own + sum(sizes.values())) / 1e6
tell(1.0, megabytes, mb=megabytes, packages=len(sizes))  # no time is taken: the "speed" is the size
