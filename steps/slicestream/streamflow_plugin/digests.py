"""One digest for a folder, here and on a site: sha256 over the sorted list of `sha256  ./path`.

StreamFlow compares the checksum of each File that it moves with the token's (cwl/step.py:657), of a Directory nothing.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from pathlib import Path

from streamflow.core.deployment import Connector, ExecutionLocation

from slicestream.streamflow_plugin.faults import SiteError

A_FILE = "file"


def local_tree(path: Path) -> str:
    """Return the digest of a local folder, links followed; `file` for a file."""
    if not path.is_dir():
        return A_FILE
    files = (file for file in path.rglob("*") if file.is_file())
    lines = sorted(f"{_sha256(file)}  ./{file.relative_to(path).as_posix()}\n".encode() for file in files)
    return hashlib.sha256(b"".join(lines)).hexdigest()


async def remote_tree(connector: Connector, location: ExecutionLocation, path: str) -> str:
    """Return the digest of a folder on a site; `file` for a file.

    Raises
    ------
    SiteError
        It is not there or cannot be read.
    """
    quoted = shlex.quote(path)
    listing = "find -L . -type f -exec sha256sum '{}' + | LC_ALL=C sort"
    script = f"if [ -d {quoted} ]; then cd {quoted} && {listing} | sha256sum; else [ -f {quoted} ] && echo {A_FILE}; fi"
    answer = await connector.run(location, ["sh", "-c", shlex.quote(script)], capture_output=True)
    found = re.match(rf"([0-9a-f]{{64}}|{A_FILE})\b", answer[0].strip()) if answer else None
    if not (answer and answer[1] == 0 and found):
        raise SiteError(f"{path} on {location}: cannot be read: {answer[0] if answer else ''}")
    return found[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
