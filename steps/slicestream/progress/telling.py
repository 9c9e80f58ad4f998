"""What happens to a run, told as it happens: a line of JSON each, and what each remote job prints, in files beside it.

Whoever reads these needs no connection to any site, and the run none to whoever reads.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

EVENTS, LOGS = "events.jsonl", "logs"


def log_name(job: str) -> str:
    """Return the file name of a job's log: /infer/0 is infer-0.log."""
    return f"{job.strip('/').replace('/', '-')}.log"


class Teller:
    """Writes into a folder, or nowhere; a folder that cannot be written to does not stop the run."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._said: dict[str, dict[str, Any]] = {}

    def tell(self, event: str, about: str = "", **facts: Any) -> None:
        """Write an event, unless the same was the last that was said about this."""
        if self._said.get(key := f"{event} {about}") == facts:
            return
        self._said[key] = facts
        line = {"time": round(time.time(), 3), "event": event} | ({"about": about} if about else {}) | facts
        self._append(EVENTS, json.dumps(line).encode() + b"\n")

    def log(self, job: str, data: bytes) -> None:
        """Write what a job has printed since the last time."""
        if data:
            self._append(f"{LOGS}/{log_name(job)}", data)

    def _append(self, name: str, data: bytes) -> None:
        if self._folder is None:
            return
        path = self._folder / name
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(handle, data)  # one write: a reader sees whole lines
            finally:
                os.close(handle)
        except OSError:
            self._folder = None
