"""Comparisons in turns: each measured call in a process of its own, round after round, ratios pair by pair.

A contender is a command. What it does before its work (imports, warming up) it may leave out with
`contenders/stopwatch.py`; what it does not time itself is timed from outside, as a whole process. All contenders of a
comparison run once per round, in an order that turns by one each round, so that a machine that changes its speed
changes it for all of them; a ratio is taken within a round, and the median over the rounds is quoted with the 5 to 95 %
range of the rounds.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
CONTENDERS = ROOT / "benchmarks" / "contenders"
PEERS = ROOT / ".venv/peers/bin"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CORES = len(os.sched_getaffinity(0))


class ContenderError(RuntimeError):
    """A contender ended badly; the message has the last line that it printed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One measured call.

    Attributes
    ----------
    seconds, items : of the work, and how much was worked on: `speed` is their ratio
    wall_s, cpu_s : of the whole process, its children with it
    peak_mb : the largest resident set of a single process
    others : share of the machine's CPU time that other processes took meanwhile, 0 to 1: a quiet machine has none
    facts : what the contender says of its result
    """

    seconds: float
    items: float
    wall_s: float
    cpu_s: float
    peak_mb: float
    others: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def speed(self) -> float:
        """Items per second."""
        return self.items / self.seconds


Round = Mapping[str, Sample]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """A command; `{work}` in it becomes an empty folder of this call.

    Attributes
    ----------
    items : counts where the command does not say
    makes : pattern of the files that it must have made in its folder, and how many at least
    libraries : those of its environment whose versions matter
    """

    name: str
    command: Sequence[str | Path]
    items: float = 1.0
    makes: tuple[str, int] = ("*", 0)
    libraries: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What is to hold: `value` of a round at least, or with `at_most` at most, `goal`.

    The table shows `figure` ("speed", "peak_mb", "" for none) of `ours` and `peer`.
    """

    what: str
    ours: str
    peer: str
    goal: float
    value: Callable[[Round], float]
    at_most: bool = False
    figure: str = "speed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Contenders and claims of them.

    Attributes
    ----------
    how : what is measured, on what, in a sentence or two; stands under the table
    unit : of `speed`; one that begins with "s" (seconds per item) is shown as its reciprocal
    missing : why it cannot run here, "" where it can
    """

    name: str
    how: str
    unit: str
    contenders: Sequence[Contender]
    claims: Sequence[Claim]
    missing: str = ""


def faster(what: str, ours: str, peer: str, goal: float, *, among: int = 1) -> Claim:
    """Return the claim that ours is `goal` times as fast, divided by `among`: the processes that share the work."""
    return Claim(what=what, ours=ours, peer=peer, goal=goal, value=lambda r: r[ours].speed / r[peer].speed / among)


def less(what: str, ours: str, peer: str, goal: float, *, fact: str) -> Claim:
    """Return the claim that ours needs `goal` times the peer's `fact` at most."""

    def ratio(samples: Round) -> float:
        return float(samples[ours].facts[fact] / samples[peer].facts[fact])

    return Claim(what=what, ours=ours, peer=peer, goal=goal, value=ratio, at_most=True)


def agrees(what: str, ours: str, goal: float, *, fact: str) -> Claim:
    """Return the claim that what ours says of its result under `fact` is `goal` or more."""

    def said(samples: Round) -> float:
        return float(samples[ours].facts[fact])

    return Claim(what=what, ours=ours, peer="", goal=goal, value=said, figure="")


def grows(what: str, names: Sequence[str], goal: float, *, of: str) -> Claim:
    """Return the claim that `of` ("seconds" or "peak_mb") grows with the items as a power of `goal` at most."""

    def exponent(samples: Round) -> float:
        items = [samples[name].items for name in names]
        return float(np.polyfit(np.log(items), np.log([getattr(samples[name], of) for name in names]), 1)[0])

    figure = "speed" if of == "seconds" else of
    return Claim(what=what, ours=names[-1], peer=names[0], goal=goal, value=exponent, at_most=True, figure=figure)


def run(comparison: Comparison, *, rounds: int, work: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Measure; return the JSON form of all samples and claims. Raises ContenderError."""
    measured: list[dict[str, Sample]] = []
    order = list(comparison.contenders)
    for number in range(1, rounds + 1):
        samples = {contender.name: measure(contender, work) for contender in order}
        for name, sample in samples.items():
            tell(f"{comparison.name}: round {number} of {rounds}: {name}: {shown(sample.speed, comparison.unit)}")
        measured.append(samples)
        order = [*order[1:], order[0]]
    return {
        "how": comparison.how,
        "unit": comparison.unit,
        "rounds": [{name: asdict(sample) for name, sample in samples.items()} for samples in measured],
        "contenders": {contender.name: _summary(contender, measured) for contender in comparison.contenders},
        "claims": [_judged(claim, measured) for claim in comparison.claims],
    }


def measure(contender: Contender, work: Path) -> Sample:
    """Run a contender once. Raises ContenderError where it fails or does not make its files."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    said, inside, outside = (work.parent / name for name in ("said.log", "measured.json", "launched.json"))
    inside.unlink(missing_ok=True)
    command = [str(word).replace("{work}", str(work)) for word in contender.command]
    environment = {**os.environ, **contender.environment, "MEASURED": str(inside)}
    busy, begin = _busy_s(), time.perf_counter()
    with said.open("wb") as output:
        launched = [sys.executable, "-S", CONTENDERS / "launcher.py", outside, *command]
        done = subprocess.run(launched, stdout=output, stderr=output, env=environment, check=False)
    busy, elapsed = _busy_s() - busy, time.perf_counter() - begin
    if done.returncode:
        last = (said.read_text(errors="replace").strip().splitlines() or ["nothing printed"])[-1]
        raise ContenderError(f"{contender.name}: failed: {last}")
    pattern, least = contender.makes
    if (made := sum(1 for _ in work.glob(pattern))) < least:
        raise ContenderError(f"{contender.name}: made {made} of {least} files {pattern}")
    shutil.rmtree(work)
    kernel = json.loads(outside.read_text())
    told = json.loads(inside.read_text()) if inside.exists() else {"seconds": kernel["wall_s"]}
    others = (busy - kernel["cpu_s"]) / (elapsed * (os.cpu_count() or 1))
    return Sample(**{"items": contender.items, **kernel, **told}, others=min(1.0, max(0.0, others)))


def _busy_s() -> float:
    """Return the CPU seconds that all processors together were not idle since the machine started."""
    first = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _waiting, irq, soft_irq, stolen = (int(ticks) for ticks in first)
    return (user + nice + system + irq + soft_irq + stolen) / TICKS_PER_S


def _summary(contender: Contender, measured: Sequence[Round]) -> dict[str, Any]:
    samples = [samples[contender.name] for samples in measured]
    figures = ("speed", "seconds", "items", "wall_s", "cpu_s", "peak_mb", "others")
    medians = {figure: median(getattr(sample, figure) for sample in samples) for figure in figures}
    return {**medians, "versions": _versions(contender)}


def _versions(contender: Contender) -> dict[str, str]:
    """Ask the Python beside the contender's command."""
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    python = Path(contender.command[0]).parent / "python"
    asked = [python, "-c", code, *contender.libraries]
    numbers = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    return dict(zip(contender.libraries, numbers, strict=True))


def _judged(claim: Claim, measured: Sequence[Round]) -> dict[str, Any]:
    values = [claim.value(samples) for samples in measured]
    middle, (low, high) = median(values), np.percentile(values, (5, 95))
    holds = middle <= claim.goal if claim.at_most else middle >= claim.goal
    kept = {name: getattr(claim, name) for name in ("what", "ours", "peer", "goal", "at_most", "figure")}
    return {**kept, "value": middle, "low": float(low), "high": float(high), "holds": bool(holds)}


def shown(speed: float, unit: str) -> str:
    """Return a speed in its unit, three digits; seconds per item where the unit begins with "s "."""
    value = 1 / speed if unit == "s" or unit.startswith("s ") else speed
    digits = max(0, 2 - math.floor(math.log10(value)))
    return f"{value:.{digits}f} {unit}"


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, memory, kernel. No name of the machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines) if value}
    flags = sorted(set(facts.get("flags", "").split()) & {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16"})
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = os.uname()
    return {
        "processor": facts.get("model name", system.machine),
        "family": f"{facts.get('cpu family', '?')}/{facts.get('model', '?')}",
        "cores": CORES,
        "flags": flags,
        "memory_gib": round(memory, 1),
        "system": f"{system.sysname} {system.release}",
    }
