"""Where and when each job ran, what went between the sites, and how the steps were joined."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from slicestream.errors import ArtefactError
from slicestream.figures.facts import Record, finite
from slicestream.volumes.documents import Facts, brief, read_json

LAPTOP = "laptop"
_OF_A_SERIES = re.compile(r"^[0-9a-f]{16}-[0-9a-f]{16}(-\d+)?(?=\.)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One job; times in seconds since the epoch."""

    step: str
    site: str
    place: str
    start: float
    end: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """What went from one site to another; bytes and seconds are None where only run records tell of it."""

    source: str
    destination: str
    files: int
    bytes: int | None = None
    seconds: float | None = None


def read_sites(path: Path) -> tuple[list[Job], list[Link]]:
    """Read sites.json of a run on sites. Raises ArtefactError."""
    document = read_json(path)
    try:
        jobs = [
            Job(
                step=str(job["step"]).strip("/"),
                site=_site(job["deployment"]),
                place=f"Slurm job {job['slurm_job']}" if job.get("slurm_job") else _site(job["location"]),
                start=finite(job["start"]),
                end=finite(job["end"]),
            )
            for job in document["jobs"]
            if job["status"] == "completed"
        ]
        links = [
            Link(
                source=_site(link["source"]),
                destination=_site(link["destination"]),
                files=int(link["files"]),
                bytes=int(link["bytes"]),
                seconds=finite(link["seconds"]),
            )
            for link in document["transfers"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(
            f"{path}: no usable record of sites ({brief(error)}); need sites.json of a run on sites. "
            "Check which file it is."
        ) from error
    return jobs, links


def jobs_of(records: Sequence[Record]) -> tuple[list[Job], list[Link]]:
    """Return jobs and links as run records tell them: a file that one site made and another read went over."""
    jobs = [
        Job(step=r.step, site=r.site, place=r.host, start=r.start.timestamp(), end=r.end.timestamp()) for r in records
    ]
    made = {content: record.site for record in records for content in record.outputs.values()}
    went: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        for content in record.inputs.values():
            if made.get(content, record.site) != record.site:
                went[made[content], record.site].add(content)
    return jobs, [Link(source=a, destination=b, files=len(files)) for (a, b), files in sorted(went.items())]


def timeline(jobs: Iterable[Job], links: Iterable[Link]) -> Facts | None:
    """Return lanes (one per site), bars (seconds from the first start, a row each) and links between the lanes."""
    jobs = sorted(jobs, key=lambda job: (job.start, job.end, job.step))
    if not jobs:
        return None
    begin = jobs[0].start
    bars: list[Facts] = []
    lanes: list[Facts] = []
    row = 0
    for number, site in enumerate(dict.fromkeys(job.site for job in jobs)):
        first = row
        for job in (job for job in jobs if job.site == site):
            times = {"start": round(job.start - begin, 3), "end": round(max(job.end, job.start) - begin, 3)}
            bars.append({"step": job.step, "site": site, "place": job.place, "lane": number, "row": row, **times})
            row += 1
        lanes.append({"site": site, "first": first, "last": row})
    there = {lane["site"] for lane in lanes}
    between = [asdict(k) for k in links if k.source != k.destination and {k.source, k.destination} <= there]
    return {"lanes": lanes, "bars": bars, "links": between, "rows": row, "end": max(bar["end"] for bar in bars)}


def joined(records: Sequence[Record]) -> Facts | None:
    """Return the steps as a graph: an edge where one read what another made, found by equal content hashes.

    Steps have a `layer` (longest way from the beginning) and a place in it; edges name the kinds of files.
    """
    made = {content: record.step for record in records for content in record.outputs.values()}
    kinds: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        for name, content in record.inputs.items():
            if made.get(content, record.step) != record.step:
                kinds[made[content], record.step].add(_kind(name))
    if not kinds:
        return None
    steps = list(dict.fromkeys(record.step for record in records))
    layer = dict.fromkeys(steps, 0)
    for _ in steps:
        for before, after in kinds:
            layer[after] = min(max(layer[after], layer[before] + 1), len(steps))
    nodes = []
    for number in sorted(set(layer.values())):
        within = [step for step in steps if layer[step] == number]
        for place, step in enumerate(within):
            mine = [record for record in records if record.step == step]
            sites = ", ".join(dict.fromkeys(record.site for record in mine))
            offset = place - (len(within) - 1) / 2
            nodes.append({"step": step, "jobs": len(mine), "sites": sites, "layer": number, "offset": offset})
    edges = [{"from": a, "to": b, "files": ", ".join(sorted(names))} for (a, b), names in sorted(kinds.items())]
    return {"nodes": nodes, "edges": edges}


def _kind(name: str) -> str:
    """Return what a file is: `volume` of <id>.volume, `training.slices` of training-000.slices."""
    return re.sub(r"-\d\w*(?=\.)", "", _OF_A_SERIES.sub("", name)).lstrip(".")


def _site(name: str) -> str:
    return LAPTOP if name == "__LOCAL__" else str(name)
