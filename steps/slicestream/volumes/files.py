"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slicestream.errors import OutputError


@contextmanager
def atomic_path(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block ends well, else remove it.

    Raises
    ------
    OutputError
        The folder is read-only, missing or full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(cannot_write(path, error)) from error
    partial = Path(name)
    try:
        yield partial
        partial.chmod(mode)
        partial.replace(path)
    except OSError as error:
        raise OutputError(cannot_write(path, error)) from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write UTF-8 text whole or not at all. Raises OutputError."""
    with atomic_path(path, mode=mode) as partial:
        partial.write_text(text, encoding="utf-8")


def cannot_write(path: Path, error: OSError) -> str:
    """Return the one line for a place that refuses to be written to."""
    return (
        f"{path}: {error.strerror}; nothing was kept half-written. Free space or choose another --out, then run again."
    )
