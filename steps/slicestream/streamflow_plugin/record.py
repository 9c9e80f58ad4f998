"""Where each job ran and how many bytes went over which link: one JSON at the end, into $SLICESTREAM_RECORD."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from slicestream.progress.telling import Teller
from slicestream.volumes.files import write_text


@dataclass(kw_only=True, slots=True)
class JobRecord:
    """One execution of a step. Times are seconds since the epoch."""

    step: str
    job: str
    deployment: str
    location: str
    slurm_job: str | None = None
    start: float = 0.0
    end: float = 0.0
    seconds: float = 0.0
    status: str = "running"


@dataclass(kw_only=True, slots=True)
class LinkRecord:
    """What went from one deployment to another, summed up."""

    source: str
    destination: str
    bytes: int = 0
    seconds: float = 0.0
    files: int = 0


@dataclass(slots=True)
class SitesRecord:
    """What a run did."""

    run: str
    teller: Teller = field(default_factory=lambda: Teller(None))
    jobs: list[JobRecord] = field(default_factory=list)
    links: dict[tuple[str, str], LinkRecord] = field(default_factory=dict)
    slurm_jobs: dict[str, str] = field(default_factory=dict)  # job name -> Slurm's id
    known_as: dict[str, str] = field(default_factory=dict)  # login node's deployment -> that of the queue behind it

    def moved(self, source: str, destination: str, *, size: int, seconds: float) -> None:
        """Count a finished transfer of one File or Directory of `size` bytes."""
        source, destination = (self.known_as.get(name, name) for name in (source, destination))
        link = self.links.setdefault((source, destination), LinkRecord(source=source, destination=destination))
        link.bytes += size
        link.seconds = round(link.seconds + seconds, 3)
        link.files += 1
        self.teller.tell(
            "moved", f"{source} to {destination}", bytes=link.bytes, seconds=link.seconds, files=link.files
        )

    def write(self) -> None:
        """Write the record, where it is asked for."""
        if not (name := os.environ.get("SLICESTREAM_RECORD")):
            return
        for job in self.jobs:
            job.slurm_job = self.slurm_jobs.get(job.job)
        record = {
            "run": self.run,
            "streamflow": version("streamflow"),
            "jobs": [asdict(job) for job in self.jobs],
            "transfers": [asdict(link) for link in self.links.values()],
        }
        write_text(Path(name), json.dumps(record, indent=2) + "\n")
