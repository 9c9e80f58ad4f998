"""Read what is told of a run: all there is so far, then what comes; the run may end and its folder be renamed."""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from slicestream.errors import OptionError
from slicestream.progress.lines import last
from slicestream.progress.state import Run
from slicestream.progress.telling import EVENTS, LOGS, log_name
from slicestream.volumes.documents import read_json

PROGRESS = "progress"  # in the folder of a run
_LONGEST = 1 << 20  # bytes of a log looked at


def named(run: Path) -> Path:
    """Return the folder that a run has or will have once it is finished.

    `run` may be that folder, the hidden one of a run that goes on, or one that holds runs: then the newest is meant.

    Raises
    ------
    OptionError
        There is no run.
    """
    if run.name.startswith("."):
        return run.with_name(run.name[1:].removesuffix(".sites"))
    if _places(run):
        return run
    found = [path for pattern in (f".*/{PROGRESS}", f"*/{PROGRESS}", "*/records") for path in run.glob(pattern)]
    if not found:
        raise OptionError(f"{run}: no run; need the folder of a run, or one that holds runs. Give runs/<name>.")
    newest = max(found, key=lambda path: path.stat().st_mtime).parent
    return named(newest) if newest.name.startswith(".") else newest


def _places(run: Path) -> list[Path]:
    """Return where a run may be now, the newest first; hidden: it goes on, failed or was killed."""
    work = run.with_name(f".{run.name}.sites")
    found = [path for path in (work, run) if (path / PROGRESS).is_dir() or (path / "records").is_dir()]
    return sorted(found, key=lambda path: path.stat().st_mtime if path == run or not _alive(run) else math.inf)[::-1]


def _alive(run: Path) -> bool:
    """Tell whether a process makes this run: it holds the lock."""
    try:
        handle = os.open(run.with_name(f".{run.name}.lock"), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


class Follower:
    """One run, read again and again."""

    def __init__(self, run: Path) -> None:
        self.path = named(run)
        self.run = Run()
        self._read = 0
        self._sizes: dict[str, int] = {}

    @property
    def folder(self) -> Path:
        """Where the run's files are now."""
        return next(iter(_places(self.path)), self.path)

    def news(self) -> Iterator[dict[str, Any]]:
        """Yield the events since the last time, then one for each job that has got further; the state is kept up."""
        alive = _alive(self.path)  # before reading: what a run that ends meanwhile still says is not lost
        for event in self._events():
            self.run.add(event)
            yield event
        yield from self._progress()
        if not self.run.jobs:
            yield from self._recorded()
        if not alive and not self.run.status:
            yield self._ended(self.run.last, "completed" if self.folder == self.path else "killed")

    def over(self) -> bool:
        """Tell whether the run has ended, as far as has been read."""
        return bool(self.run.status)

    def log(self, job: str) -> Path:
        """Return the path of a job's log, which may not be there yet."""
        return self.folder / PROGRESS / LOGS / log_name(job)

    def _events(self) -> Iterator[dict[str, Any]]:
        try:
            with (self.folder / PROGRESS / EVENTS).open("rb") as file:
                file.seek(self._read)
                said = file.read()
        except OSError:
            return
        for line in said.splitlines(keepends=True):
            if line.endswith(b"\n"):
                self._read += len(line)
                yield json.loads(line)

    def _progress(self) -> Iterator[dict[str, Any]]:
        for name in self.run.jobs:
            path = self.log(name)
            try:
                status = path.stat()
                if self._sizes.get(name) == status.st_size:
                    continue
                self._sizes[name] = status.st_size
                with path.open("rb") as file:
                    file.seek(max(0, status.st_size - _LONGEST))
                    found = last(file.read().decode(errors="replace"))
            except OSError:
                continue
            if found and self.run.said(name, found, status.st_mtime):
                yield {
                    "time": round(status.st_mtime, 3),
                    "event": "progress",
                    "about": name,
                    "share": round(found.share, 4),
                    "left_s": self.run.jobs[name].left_s(time.time()),
                    "text": found.text,
                }

    def _recorded(self) -> Iterator[dict[str, Any]]:
        """Yield the jobs of a run of which only its records tell."""
        found = [read_json(path) for path in self.folder.glob("records/*.run.json")]
        for record in sorted(found, key=lambda one: str(one.get("start"))):
            name, step = f"/{record.get('step')}", 1
            while name in self.run.jobs:
                name, step = f"/{record.get('step')}/{step}", step + 1
            for fact, state in (("start", "runs"), ("end", "completed")):
                at = datetime.fromisoformat(str(record[fact])).timestamp()
                event = {
                    "time": at,
                    "event": "job",
                    "about": name,
                    "state": state,
                    "place": record.get("site") or record.get("host"),
                }
                self.run.add(event)
                yield event

    def _ended(self, at: float, status: str) -> dict[str, Any]:
        event = {"time": at, "event": "end", "status": status}
        self.run.add(event)
        return event
