"""Writing many files whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slicestream.errors import OutputError
from slicestream.volumes.files import cannot_write


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Yield a hidden folder in `out`; move what is in it into `out` when the block ends well, else remove it.

    Raises
    ------
    OutputError
        `out` is read-only or full, or holds a folder of such a name that is not empty.
    """
    made = _made(out)
    try:
        room = Path(tempfile.mkdtemp(prefix=".partial-", dir=out))
    except OSError as error:
        raise OutputError(cannot_write(out, error)) from error
    try:
        yield room
        _check_folders_free(out, room)
        for path in sorted(room.iterdir()):
            path.replace(out / path.name)
        made = None
    except OSError as error:
        cause = _first_cause(error)
        if cause is None:
            raise
        raise OutputError(cannot_write(out, cause)) from error
    except OutputError as error:
        raise OutputError(str(error).replace(f"{room}{os.sep}", f"{out}{os.sep}")) from error
    finally:
        shutil.rmtree(room, ignore_errors=True)
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def _made(out: Path) -> Path | None:
    """Make the folder; return the topmost one that was not there before."""
    first = next((folder for folder in reversed([out, *out.parents]) if not folder.exists()), None)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(cannot_write(out, error)) from error
    return first


def _check_folders_free(out: Path, room: Path) -> None:
    # A file of an earlier run is replaced; its folder cannot be, and a mix of two runs would tell lies.
    for path in sorted(room.iterdir()):
        taken = out / path.name
        if path.is_dir() and taken.is_dir() and any(taken.iterdir()):
            raise OutputError(
                f"{taken}: not empty; nothing was changed. Remove it or choose another --out, then run again."
            )


def _first_cause(error: BaseException | None) -> OSError | None:
    """Return what the system said: pydicom wraps it into an OSError of its own, without a number."""
    while error is not None and not (isinstance(error, OSError) and error.errno):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, OSError) else None
