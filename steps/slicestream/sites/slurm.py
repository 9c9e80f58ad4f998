"""Would Slurm take a job with a service's options, where would it run, and when would it start?"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from slicestream.sites.findings import Row, Rows, one_line
from slicestream.sites.ssh import Site

NODES = "sinfo --noheader --Node --format='%R|%a|%l|%N|%T|%G|%m|%P|%E'"
OUT_OF_USE = ("down", "drain", "fail", "error", "unknown", "maint", "inval", "no_respond", "not_responding")
UNITS_MB = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}
LONG_WAIT_S = 60.0
START = re.compile(r"to start at (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)")
GPU_OPTIONS = ("gpus", "gpusPerNode", "gpusPerTask", "gpusPerSocket")


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A node of a partition, as sinfo tells of it."""

    partition: str
    up: bool
    limit: str
    name: str
    state: str
    gres: str
    memory_mb: int
    reason: str
    default: bool

    @property
    def usable(self) -> bool:
        """Whether jobs may start on it, now or when others end."""
        return not self.state.startswith(OUT_OF_USE)


def submission(site: Site, folder: str, name: str, options: Mapping[str, Any], *, trains: bool, device: str) -> Rows:
    """Look at the partition of a service, and ask Slurm whether it would take its job."""
    answer = site.run(NODES)
    if answer.status:
        yield "queue", "to do", f"sinfo does not answer ({one_line(answer.err)}); ask the site's staff: is Slurm up?"
        return
    every = [_node(line) for line in answer.out.splitlines()]
    wanted = str(options.get("partition", ""))
    nodes = [one for one in every if one.partition in wanted.split(",") or (not wanted and one.default)]
    rows = list(_partition(name, wanted, nodes, every))
    if nodes:
        rows += [*_gres(name, options, nodes, trains=trains, device=device), *_limits(name, options, nodes)]
    yield from rows
    if not any(verdict == "to do" for _, verdict, _ in rows):  # one cause, one line
        yield _test(site, folder, name, options)


def _node(line: str) -> Node:
    partition, up, limit, name, state, gres, memory, marked, reason = line.split("|", 8)
    return Node(
        partition=partition,
        up=up == "up",
        limit=limit,
        name=name,
        state=state.rstrip("*~#!%$@^-+"),
        gres=gres,
        memory_mb=int(memory.rstrip("+")),
        reason=reason,
        default=marked.endswith("*"),
    )


def _partition(name: str, wanted: str, nodes: list[Node], every: list[Node]) -> Iterator[Row]:
    if not nodes:
        known = ", ".join(sorted({one.partition for one in every}))
        what = f"there is no partition {wanted}" if wanted else "there is no default partition"
        yield "partition", "to do", f"service {name}: {what}; the site has: {known}"
        return
    title = ", ".join(sorted({one.partition for one in nodes}))
    usable = [one for one in nodes if one.usable]
    if not any(one.up for one in nodes):
        yield "partition", "to do", f"{title} is not up; ask the site's staff, or choose another"
    elif not usable:
        which = ", ".join(f"{one.name} {one.state}: {one.reason}" for one in nodes[:3])
        line = f"no node of {title} takes jobs ({which}); ask the site's staff, or choose another partition"
        yield "partition", "to do", line
    else:
        yield "partition", "ok", f"{title} is up, {len(usable)} of {len(nodes)} nodes take jobs"


def _gres(name: str, options: Mapping[str, Any], nodes: list[Node], *, trains: bool, device: str) -> Iterator[Row]:
    asked = [(key, str(options[key])) for key in GPU_OPTIONS if key in options]
    asked += [("gres", one) for one in str(options.get("gres", "")).split(",") if one.startswith("gpu")]
    there = sorted({one.gres for one in nodes if one.gres != "(null)"})
    title = nodes[0].partition
    for key, value in asked:
        kind, count = _kind_and_count(value)
        total = [_count(one.gres, kind) for one in nodes]
        most = sum(total) if key == "gpus" else max(total)
        if most < count:
            has = ", ".join(there) or "none"
            line = f"service {name} asks for {key}={value}, {title} has {has}; correct it, or choose another partition"
            yield "gres", "to do", line
        else:
            yield "gres", "ok", f"service {name} asks for {key}={value}, {title} has {', '.join(there)}"
    if trains and not asked and device not in ("cpu", "auto"):
        advice = "set gpus, or SLICESTREAM_DEVICE=cpu in site.env"
        yield "gres", "to do", f"service {name}: training needs a GPU, none is asked for; {advice}"


def _kind_and_count(value: str) -> tuple[str, int]:
    """Return kind ("" for any) and number of `2`, `a100`, `a100:2` or `gpu:a100:2`."""
    words = [one for one in value.split(":") if one != "gpu"]
    count = int(words.pop()) if words and words[-1].isdigit() else 1
    return (words[0] if words else ""), count


def _count(gres: str, kind: str) -> int:
    """Return how many GPUs of a kind a node's gres names, `gpu:a100:1(S:0),gpu:v100:2`."""
    found = re.findall(r"\bgpu(?::([\w.-]+?))?:(\d+)(?:\(|,|$)", gres)
    return sum(int(count) for its, count in found if kind in ("", its))


def _limits(name: str, options: Mapping[str, Any], nodes: list[Node]) -> Iterator[Row]:
    title, most_mb = nodes[0].partition, max(one.memory_mb for one in nodes)
    asked_mb = megabytes(str(options.get("mem", "0")))
    if asked_mb is not None and asked_mb > most_mb:
        said = f"service {name} asks for mem={options['mem']}, the nodes of {title} have {most_mb} MB at most"
        yield "memory", "to do", f"{said}; lower it, or choose another partition"
    elif "mem" in options:
        yield "memory", "ok", f"service {name} asks for mem={options['mem']} of {most_mb} MB"
    asked_min, limits = minutes(str(options.get("time", "0"))), [minutes(one.limit) for one in nodes]
    if asked_min is not None and all(limit is not None and asked_min > limit for limit in limits):
        said = f"service {name} asks for time={options['time']}, {title} gives {nodes[0].limit} at most"
        yield "time limit", "to do", f"{said}; the job would wait for ever: lower it, or choose another partition"
    elif "time" in options:
        yield "time limit", "ok", f"service {name} asks for time={options['time']} of {nodes[0].limit}"


def megabytes(text: str) -> float | None:
    """Return what Slurm takes a memory for, `8G` or `8000`, in MB; None if it is none."""
    found = re.fullmatch(r"(\d+)([KMGT]?)B?", text.upper())
    return int(found[1]) * UNITS_MB[found[2] or "M"] if found else None


def minutes(text: str) -> float | None:
    """Return what Slurm takes a time for, `90`, `12:00:00` or `1-12:00`, in minutes; None for no limit, or if none."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not found:
        return None
    days, first, second, third = (int(one) if one else 0 for one in found.groups())
    if found[1]:  # days-hours:minutes:seconds
        return days * 1440 + first * 60 + second + third / 60
    if found[4]:  # hours:minutes:seconds
        return first * 60 + second + third / 60
    return first + second / 60  # minutes:seconds


def _test(site: Site, folder: str, name: str, options: Mapping[str, Any]) -> Row:
    """Ask Slurm whether it would take a job with a service's options, and when it would start."""
    flags = [flag for key, value in options.items() if key != "file" for flag in _flag(key, value)]
    command = f"date +%FT%T; cd {shlex.quote(folder)} && sbatch --test-only {shlex.join(flags)} --wrap=true"
    answer = site.run(command)
    said = " ".join(flags) or "no options"
    if answer.status:
        line = f"Slurm refuses service {name} with {said} ({one_line(answer.err)}); correct its options"
        return "queue", "to do", line
    begins = START.search(answer.err)
    if begins is None:
        return "queue", "ok", f"Slurm takes service {name} with {said}"
    wait_s = (datetime.fromisoformat(begins[1]) - datetime.fromisoformat(answer.out.split()[0])).total_seconds()
    if wait_s <= LONG_WAIT_S:
        return "queue", "ok", f"Slurm takes service {name} with {said}, to start at once"
    return "queue", "note", f"Slurm takes service {name} with {said}, to start in {wait_s / 60:.0f} min"


def _flag(key: str, value: Any) -> list[str]:
    """Return an option of a Slurm service, `cpusPerTask: 2`, as sbatch takes it."""
    flag = "--" + re.sub(r"[A-Z]", lambda letter: f"-{letter[0].lower()}", key)
    if isinstance(value, bool):
        return [flag] if value else []
    return [f"{flag}={value}"]
