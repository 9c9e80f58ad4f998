"""The run record of a step: who did what where, when, from what. Times and hosts live here and nowhere else."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slicestream import __version__
from slicestream.volumes.energy import NO_COUNTER, read_counters, used
from slicestream.volumes.files import write_text


@dataclass(kw_only=True, slots=True)
class RunRecord:
    """Filled while a step runs; see docs/data.md for each field."""

    step: str
    site: str
    host: str
    device: str
    job: str
    gres: str
    image: str
    start: str
    end: str = ""
    seconds: float = 0.0
    items: int = 0
    unit: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    energy_j: float | None = None
    energy_from: str = NO_COUNTER
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def add_input(self, name: str, content_hash: str, size: int) -> None:
        """Note an artefact that was read: its pseudonymous name, content hash and size in bytes."""
        self.inputs[name] = content_hash
        self.bytes_in += size

    def add_output(self, path: Path, content_hash: str) -> None:
        """Note an artefact that was written."""
        self.outputs[path.name] = content_hash
        self.bytes_out += path.stat().st_size


@contextmanager
def recorded(step: str, out: Path, *, tag: str = "") -> Iterator[RunRecord]:
    """Yield the record of a step; write `<step>[-tag].run.json` into `out` when the step ends well."""
    begin, counters = datetime.now(UTC), read_counters()
    record = RunRecord(
        step=step,
        site=os.environ.get("SLICESTREAM_SITE", "laptop"),
        host=socket.gethostname(),
        device=f"cpu ({len(os.sched_getaffinity(0))} cores)",
        job=os.environ.get("SLICESTREAM_JOB", ""),
        gres=os.environ.get("SLICESTREAM_GRES", ""),
        image=os.environ.get("SLICESTREAM_IMAGE", ""),
        start=begin.isoformat(timespec="milliseconds"),
        versions={"slicestream": __version__, "python": platform.python_version()},
    )
    yield record
    end = datetime.now(UTC)
    record.energy_j, record.energy_from = used(counters, read_counters())
    record.end, record.seconds = end.isoformat(timespec="milliseconds"), round((end - begin).total_seconds(), 3)
    name = f"{step}-{tag}.run.json" if tag else f"{step}.run.json"
    write_text(out / name, json.dumps(asdict(record), indent=1, sort_keys=True) + "\n")


def tag_of(names: Iterable[str]) -> str:
    """Return 8 hex digits that tell one scattered job's record from another's: a hash of what it worked on."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:8]
