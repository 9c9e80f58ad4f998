"""The state of a run, added up from what is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slicestream.progress.lines import Progress

OVER = ("completed", "failed")


@dataclass(kw_only=True, slots=True)
class Job:
    """One execution of a step. Times are seconds since the epoch; `ahead`: jobs before it in Slurm's queue."""

    name: str
    place: str = ""
    state: str = "starts"
    started: float = 0.0
    since: float = 0.0  # of its state
    ended: float = 0.0
    slurm_job: str = ""
    ahead: int | None = None
    expected: str = ""
    reason: str = ""
    progress: Progress | None = None
    said_at: float = 0.0  # of its progress

    def seconds(self, now: float) -> float:
        """Return how long it has taken, or took."""
        return (self.ended or now) - self.started

    def left_s(self, now: float) -> float | None:
        """Return the seconds left: as the job said, less what has gone since, else at the rate so far."""
        if self.progress is None or self.state != "runs" or not self.progress.share:
            return None
        if self.progress.left_s is not None:
            return max(0.0, self.progress.left_s - (now - self.said_at))
        return (self.said_at - self.since) * (1 - self.progress.share) / self.progress.share


@dataclass(kw_only=True, slots=True)
class Run:
    """What is known of a run. `out_of_reach`: what waits for which site; `status` is empty while it goes on."""

    id: str = ""
    started: float = 0.0
    last: float = 0.0
    jobs: dict[str, Job] = field(default_factory=dict)
    moved: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    out_of_reach: dict[str, str] = field(default_factory=dict)
    status: str = ""

    def add(self, event: Mapping[str, Any]) -> None:
        """Take in one event; unknown kinds and facts are passed over, for runs of another version."""
        at = float(event.get("time", 0.0))
        self.started, self.last = self.started or at, max(self.last, at)
        about = str(event.get("about", ""))
        match event.get("event"):
            case "run":
                self.id = about
            case "job":
                self._job(about, event, at)
            case "moved":
                self.moved[about] = event
            case "site" if event.get("state") == "out of reach":
                self.out_of_reach[about] = str(event.get("why", ""))
            case "site":
                self.out_of_reach.pop(about, None)
            case "end":
                self.status, self.out_of_reach = str(event.get("status", "")), {}

    def _job(self, name: str, event: Mapping[str, Any], at: float) -> None:
        job = self.jobs.setdefault(name, Job(name=name, started=at, since=at))
        state = str(event.get("state", job.state))
        if state != job.state:
            job.state, job.since = state, at
        job.place = str(event.get("place", job.place))
        job.slurm_job = str(event.get("slurm_job", job.slurm_job))
        job.ahead = event.get("ahead")
        job.expected, job.reason = str(event.get("expected", "")), str(event.get("reason", ""))
        job.ended = at if state in OVER else 0.0

    def said(self, job: str, progress: Progress, at: float) -> bool:
        """Note how far a job says it is; return whether that is news."""
        one = self.jobs.get(job)
        if one is None or one.progress == progress:
            return False
        one.progress, one.said_at = progress, at
        return True
