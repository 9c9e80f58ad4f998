"""The register of runs on this machine: what each has made on which site, and whether it still lives.

One file for each run, `<state folder>/slicestream/runs/<run id>.json`, written before anything is made on a site and
locked while the process of the run lives. The kernel frees the lock of a killed process, so a file that can be locked
is a run that was killed: its leftovers are still on the sites.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from slicestream.errors import ArtefactError, OptionError, OutputError

RUN_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Somewhere a run makes things: a work folder behind ssh, or labelled objects in a cluster's namespace."""

    kind: Literal["ssh", "slurm", "kubernetes"]
    host: str  # ssh alias; Kubernetes context, or "" for the current one
    folder: str = ""  # <workdir>/<run id>; "" for Kubernetes
    namespace: str = ""  # Kubernetes only; "" for the context's own


class Run:
    """A registered run whose lock this process holds until `close` or `release`."""

    def __init__(self, run_id: str, places: tuple[Place, ...], *, lock: int) -> None:
        self.id = run_id
        self.places = places
        self._lock = lock

    def add(self, place: Place) -> None:
        """Register a place, before anything is made there. Adding it again changes nothing."""
        if place in self.places:
            return
        if place.kind != "kubernetes" and PurePosixPath(place.folder).name != self.id:
            raise ValueError(f"work folder {place.folder!r} is not named by its run {self.id}")
        places = (*self.places, place)
        partial, lock = _locked_file(self.id, places)
        partial.replace(_path(self.id))  # the new file is locked before it takes the place of the old
        os.close(self._lock)
        self.places, self._lock = places, lock

    def close(self) -> None:
        """Strike the run off the register: nothing of it is left on any site."""
        if self._lock >= 0:
            _path(self.id).unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Leave the run registered and give its lock back: something of it may be left on a site."""
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1


def start_run(run_id: str | None = None) -> Run:
    """Register a run under `run_id`, else $SLICESTREAM_RUN, else a random id.

    Raises
    ------
    OptionError
        The id is no run id, or is registered already.
    OutputError
        The register cannot be written to.
    """
    run_id = run_id or os.environ.get("SLICESTREAM_RUN") or secrets.token_hex(6)
    if not RUN_ID.fullmatch(run_id):
        raise OptionError(f"run id {run_id!r}: needed: 12 digits of 0-9a-f; unset SLICESTREAM_RUN for a random one")
    partial, lock = _locked_file(run_id, ())
    try:
        os.link(partial, _path(run_id))
    except FileExistsError:
        os.close(lock)
        raise OptionError(
            f"run id {run_id}: already registered; wait for that run to end or, if it was killed, run slicestream clean"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    return Run(run_id, (), lock=lock)


def abandoned_runs() -> list[Run]:
    """Return the runs whose process was killed, each with its lock held until `close` or `release`.

    Raises
    ------
    ArtefactError
        A file of the register is damaged.
    """
    names = sorted(path for path in folder().glob("*.json") if RUN_ID.fullmatch(path.stem))
    runs: list[Run] = []
    try:
        for path in names:
            run = _abandoned(path)
            if run is not None:
                runs.append(run)
    except ArtefactError:
        for run in runs:
            run.release()
        raise
    return runs


def folder() -> Path:
    """Return the folder of the register, which may not exist yet."""
    home = os.environ.get("XDG_STATE_HOME", "")
    base = Path(home) if Path(home).is_absolute() else Path.home() / ".local/state"
    return base / "slicestream/runs"


def _path(run_id: str) -> Path:
    return folder() / f"{run_id}.json"


def _locked_file(run_id: str, places: tuple[Place, ...]) -> tuple[Path, int]:
    """Write the record under a temporary name; return it with its lock."""
    try:
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        folder().chmod(0o700)
        handle, name = tempfile.mkstemp(prefix=f".{run_id}.", dir=folder())  # mode 0600, not inherited by children
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.write(handle, json.dumps({"run": run_id, "places": [asdict(place) for place in places]}).encode())
        os.fsync(handle)
    except OSError as error:
        raise OutputError(
            f"{folder()}: {error.strerror}; the run cannot be registered; set XDG_STATE_HOME to a writable folder"
        ) from error
    return Path(name), handle


def _abandoned(path: Path) -> Run | None:
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None  # its run has just ended
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_ino != path.stat().st_ino:
            raise FileNotFoundError  # its run has just added a place, so it lives
        record = json.loads(path.read_text(encoding="utf-8"))
        return Run(path.stem, tuple(Place(**place) for place in record["places"]), lock=lock)
    except (BlockingIOError, FileNotFoundError):
        os.close(lock)
        return None
    except (ValueError, KeyError, TypeError) as error:
        os.close(lock)
        raise ArtefactError(
            f"{path}: not a record of a run; look on the sites for what is named {path.stem}, then remove this file"
        ) from error
