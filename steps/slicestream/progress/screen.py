"""A run's state for a terminal."""

from __future__ import annotations

import time

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from slicestream.progress.state import OVER, Job, Run

STYLES = {"completed": "green", "failed": "bold red", "killed": "bold red", "runs": "cyan", "queued": "yellow"}
_BAR = 24  # columns


def screen(run: Run, tail: tuple[str, list[str]], *, now: float) -> RenderableType:
    """Return all of it: head, a row for each job, links, what is out of reach, the last lines of a job's log."""
    jobs = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("job", "where", "state", "time", "", "left"):
        jobs.add_column(heading, no_wrap=heading != "", justify="right" if heading in ("time", "left") else "left")
    for job in run.jobs.values():
        jobs.add_row(*_row(job, now))
    parts: list[RenderableType] = [_head(run, now), jobs]
    if run.moved:
        parts.append(Text(_links(run), style="dim"))
    parts += [
        Text(f"out of reach: {what}: {plain(why)}", style="bold yellow") for what, why in run.out_of_reach.items()
    ]
    name, lines = tail
    if lines:
        parts.append(Text(f"\n{name} says", style="bold"))
        parts += [Text(plain(line), style="dim", no_wrap=True, overflow="ellipsis") for line in lines]
    return Group(*parts)


def line(event: dict[str, object], run: Run) -> str:
    """Return one event as one line of text, empty for what needs none."""
    about = event.get("about", "")
    at = time.strftime("%H:%M:%S", time.localtime(float(str(event.get("time", 0)))))
    match event.get("event"):
        case "job":
            job = run.jobs[str(about)]
            return f"{at} {about}: {state(job)} on {job.place}"
        case "progress":
            return f"{at} {about}: {plain(str(event['text']))}, {clock(event['left_s'])} left"
        case "site":
            return f"{at} {about}: {event['state']} {plain(str(event.get('why', '')))}".rstrip()
        case "end":
            return f"{at} run {event['status']}"
    return ""


def state(job: Job) -> str:
    """Return a job's state in words: with the number, the place and the estimated start that Slurm gives."""
    number = f" as Slurm job {job.slurm_job}" if job.slurm_job else ""
    if job.state != "queued":
        return f"{job.state}{number}"
    ahead = f", {job.ahead} ahead" if job.ahead is not None else ""
    expected = f", start expected {job.expected}" if job.expected else ""
    return f"queued{number}{ahead}{f' ({job.reason})' if job.reason else ''}{expected}"


def clock(seconds: object) -> str:
    """Return seconds as 0:01:05, nothing known as a dash."""
    if not isinstance(seconds, (int, float)):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def plain(text: str) -> str:
    """Return text without what steers a terminal: it comes from another machine."""
    return "".join(character if character.isprintable() else " " for character in text)


def _head(run: Run, now: float) -> Text:
    took = clock((run.last if run.status else now) - run.started) if run.started else clock(None)
    status = run.status or "goes on"
    head = Text(f"run {run.id} " if run.id else "run ")
    return head.append(status, style=STYLES.get(status, "cyan")).append(f", {took}")


def _row(job: Job, now: float) -> tuple[RenderableType, ...]:
    share = 1.0 if job.state == "completed" else job.progress.share if job.progress else 0.0
    bar = ProgressBar(total=1.0, completed=share, width=_BAR) if job.progress else Text("")
    shown = Table.grid(padding=(0, 1))
    shown.add_row(bar, Text(plain(job.progress.text) if job.progress else "", overflow="ellipsis"))
    return (
        job.name.strip("/"),
        job.place,
        Text(state(job), style=STYLES.get(job.state, "")),
        clock(job.seconds(now)),
        shown,
        "" if job.state in OVER else clock(job.left_s(now)),
    )


def _links(run: Run) -> str:
    told = (f"{link}: {facts['bytes'] / 1e6:.1f} MB in {facts['seconds']:.1f} s" for link, facts in run.moved.items())
    return "moved  " + "   ".join(told)
