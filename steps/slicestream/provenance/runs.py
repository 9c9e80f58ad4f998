"""What a run's folder says about the run: its run records, joined with what StreamFlow's plugin wrote of the sites."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slicestream.errors import ArtefactError
from slicestream.provenance import allowed
from slicestream.volumes.documents import read_json

SITES = "sites.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """An artefact by name and hash."""

    name: str
    content_hash: str
    kind: allowed.Kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """One execution of a step, as far as it may be told.

    `figures` are those of the run record: seconds, items, bytes_in, bytes_out; `place` is an alias, `site` its kind.
    """

    step: str
    name: str
    start: str
    end: str
    failed: bool
    place: str
    site: str
    slurm_job: str = ""
    gres: str = ""
    device: str = ""
    image: str = ""
    unit: str = ""
    figures: Mapping[str, float]
    inputs: tuple[File, ...] = ()
    outputs: tuple[File, ...] = ()
    parameters: Mapping[str, Any]
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """What went from one place to another in all."""

    source: str
    destination: str
    bytes: int
    seconds: float
    files: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """All executions of a run, by start, and what was moved between sites."""

    id: str
    engine: str
    engine_version: str
    executions: tuple[Execution, ...]
    links: tuple[Link, ...]


def read_run(folder: Path) -> Run:
    """Read the records of a run, finished or not.

    Raises
    ------
    ArtefactError
        There is none, or one cannot be read.
    """
    records = _records(folder)
    told = read_json(folder / SITES) if (folder / SITES).is_file() else {}
    if not records and not told:
        raise ArtefactError(
            f"{folder}: no run record (*.run.json) and no {SITES}; need the folder of a run. "
            "Give runs/<name>, or the hidden folder that an unfinished run left there."
        )
    try:
        executions = _joined(records, told.get("jobs", []))
        links = tuple(_link(one) for one in told.get("transfers", []))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(
            f"{folder}: a record lacks a field or has another in its place ({error!r}); need those of one run. "
            "Put them back unchanged."
        ) from error
    digest = hashlib.sha256("".join(f"{one.name}{one.start}" for one in executions).encode()).hexdigest()
    return Run(
        id=allowed.text("run", told.get("run")) or digest[:12],
        engine="StreamFlow" if told else "cwltool",
        engine_version=allowed.text("library", told.get("streamflow")),
        executions=executions,
        links=links,
    )


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return file name → run record; of several of one name the one that ended last.

    An unfinished run has copies in the engine's own folders, once per consumer.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*.run.json")):
        kind, record = allowed.kind_of(path.name), read_json(path)
        if kind and str(record.get("end", "")) >= str(found.get(path.name, {}).get("end", "")):
            found[path.name] = record
    return found


def _joined(records: dict[str, dict[str, Any]], jobs: list[dict[str, Any]]) -> tuple[Execution, ...]:
    left = [job for job in jobs if job["step"].count("/") == 1]
    executions = []
    for file, record in sorted(records.items()):
        job = _job_of(record, left)
        if job is not None:
            left.remove(job)
        executions.append(_execution(file.removesuffix(".run.json"), record, job or {}))
    executions += [_without_record(number, job) for number, job in enumerate(left)]
    return tuple(sorted(executions, key=lambda one: (one.start, one.name)))


def _job_of(record: dict[str, Any], jobs: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the engine's job that wrote a record: by Slurm's id, by pod, else the one that began last before it."""
    own = [job for job in jobs if job["step"] == f"/{record['step']}" and job["status"] == "completed"]
    sure = [
        job
        for job in own
        if (record["job"] and job["slurm_job"] == record["job"]) or job["location"].split(":")[0] == record["host"]
    ]
    began = datetime.fromisoformat(record["start"]).timestamp()
    return min(sure or own, key=lambda job: (job["start"] > began, abs(job["start"] - began)), default=None)


def _execution(name: str, record: dict[str, Any], job: dict[str, Any]) -> Execution:
    site = allowed.site_kind(record["site"])
    return Execution(
        step=_step(record["step"]),
        name=name,
        start=_time(record["start"]),
        end=_time(record["end"]),
        failed=False,
        place=allowed.alias(job["deployment"]) if job else site,
        site=site,
        slurm_job=allowed.text("job", record["job"] or job.get("slurm_job")),
        gres=allowed.text("gres", record["gres"]),
        device=allowed.text("device", record["device"]),
        image=allowed.text("image", record.get("image")),
        unit=allowed.text("unit", record["unit"]),
        figures={key: _figure(record[key]) for key in ("seconds", "items", "bytes_in", "bytes_out")},
        inputs=_files(record["inputs"]),
        outputs=_files(record["outputs"]),
        parameters=allowed.parameters(record["parameters"]),
        versions={
            library: version
            for library, version in sorted(record["versions"].items())
            if allowed.text("library", library) and allowed.text("library", version.replace("+", "-"))
        },
    )


def _without_record(number: int, job: dict[str, Any]) -> Execution:
    place = allowed.alias(job["deployment"])
    step = _step(job["step"].removeprefix("/"))
    return Execution(
        step=step,
        name=f"{step}-job{number}",
        start=_moment(job["start"]),
        end=_moment(job["end"] or job["start"]),
        failed=job["status"] != "completed",
        place=place,
        site=allowed.LAPTOP if place == allowed.LAPTOP else allowed.OTHER,
        slurm_job=allowed.text("job", job["slurm_job"]),
        figures={"seconds": _figure(job["seconds"])},
        parameters={},
        versions={},
    )


def _link(link: dict[str, Any]) -> Link:
    return Link(
        source=allowed.alias(link["source"]),
        destination=allowed.alias(link["destination"]),
        bytes=int(link["bytes"]),
        seconds=float(link["seconds"]),
        files=int(link["files"]),
    )


def _step(name: str) -> str:
    if not allowed.text("step", name):
        raise ValueError("step")
    return name


def _files(hashes: Mapping[str, str]) -> tuple[File, ...]:
    known = ((name, allowed.text("hash", value), allowed.kind_of(name)) for name, value in sorted(hashes.items()))
    return tuple(File(name=name, content_hash=value, kind=kind) for name, value, kind in known if kind and value)


def _figure(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("figure")
    return value


def _time(value: str) -> str:
    return datetime.fromisoformat(value).astimezone(UTC).isoformat(timespec="milliseconds")


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
