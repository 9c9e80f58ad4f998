"""Damaged and hostile DICOM through all of `slicestream preprocess`: every outcome is a result or one clear line.

From a small CT slice in each transfer syntax, and from files that pydicom carries, inputs are made by a seeded chance:
bytes flipped, elements dropped, doubled, retagged, given another VR, length or value, files cut, codestreams damaged.
Each is read as a cohort by the command line's own function, in this process. Looked for: exceptions other than ours,
more or less than one line, more than 10 s, more than 2 GB, files anywhere but in the output folder, a parent that dies.

    python benchmarks/fuzz.py --inputs 20000 --seed 1
    python benchmarks/fuzz.py --only 4711 --seed 1        # one input again, with its traceback
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_mutations import layout_of, mutated
from fuzz_seeds import plain_slice, seeds

from slicestream.__main__ import main as slicestream
from slicestream.dicom.decoder import shared_decoders

MOST_SECONDS, MOST_BYTES = 10.0, 2_000_000_000


class HangError(BaseException):
    """An input took so long that it was given up."""


@dataclass(kw_only=True)
class Bench:
    """A folder with a cohort of one or two files, and what is watched while it is read."""

    work: Path
    neighbour: bytes
    strayed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.work / "key").write_text("a key for comparisons only\n")
        sys.addaudithook(self._watch)

    def read(self, content: bytes, *, beside: bool) -> tuple[str, str]:
        """Return "result", "refused" or "violation", and the line or the reason."""
        for folder in ("cohort", "out"):
            shutil.rmtree(self.work / folder, ignore_errors=True)
        (self.work / "cohort").mkdir()
        (self.work / "cohort" / "0.dcm").write_bytes(content)
        if beside:
            (self.work / "cohort" / "1.dcm").write_bytes(self.neighbour)
        said, errors = io.StringIO(), io.StringIO()
        arguments = [f"--{name}={self.work / name}" for name in ("cohort", "out")]
        arguments += [f"--pseudonym-key={self.work / 'key'}"]
        self.strayed.clear()
        start = time.monotonic()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors), alarm(3 * MOST_SECONDS):
                status = slicestream(["preprocess", *arguments])
        except (Exception, HangError) as error:
            traceback.print_exc(file=errors)
            return "violation", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}\n{errors.getvalue()}"
        return self._judged(status, errors.getvalue(), time.monotonic() - start)

    def _judged(self, status: int, errors: str, seconds: float) -> tuple[str, str]:
        out = sorted(path.name for path in (self.work / "out").iterdir()) if (self.work / "out").exists() else []
        lines = [line for line in errors.splitlines() if line.startswith("slicestream preprocess: ")]
        if seconds > MOST_SECONDS:
            return "violation", f"{seconds:.1f} s"
        if self.strayed:
            return "violation", f"wrote {self.strayed}"
        if status == 0 and len([name for name in out if name.endswith(".volume")]) >= 1:
            return "result", ""
        if status == 2 and len(lines) == 1 and errors.endswith(f"{lines[0]}\n") and not out:
            return "refused", lines[0].removeprefix("slicestream preprocess: ")
        return "violation", f"status {status}, {len(lines)} lines, files {out}: {errors}"

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        # what this process opens to write to, makes or renames, anywhere
        paths = arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]
        writes = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if not writes and event not in ("os.rename", "os.link", "os.symlink", "os.mkdir"):
            return
        for path in paths:
            inside = isinstance(path, int) or Path(os.fsdecode(path)).is_relative_to(self.work)
            if not inside and os.fsdecode(path) != os.devnull and "__pycache__" not in os.fsdecode(path):
                self.strayed.append(f"{event} {os.fsdecode(path)}")


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise HangError in the block after that many seconds."""

    def hung(*_: object) -> None:
        raise HangError(f"over {seconds:g} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def kind_of(line: str) -> str:
    """Return a refusal without what is particular: paths, values, numbers."""
    text = re.sub(r"^[^:]*?(/[^:]*)+: ?", "", line)
    text = re.sub(r"'[^']*'|\[[^]]*\]", "", text.split(";")[0].split(" (")[0])
    return " ".join(re.sub(r"[-+]?\d[\w.]*", "#", text).split())[:60]


@dataclass(kw_only=True)
class Found:
    """What came of some inputs, and what reading them took: seconds, and bytes of the reader and of its decoder."""

    unharmed: dict[str, str]
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    violations: int = 0
    slowest: float = 0.0
    peaks: tuple[int, int] = (0, 0)

    def add(self, other: Found) -> None:
        self.outcomes += other.outcomes
        self.refusals += other.refusals
        self.violations += other.violations
        self.slowest = max(self.slowest, other.slowest)
        self.peaks = (max(self.peaks[0], other.peaks[0]), max(self.peaks[1], other.peaks[1]))


def examine(seed: int, inputs: range, *, aloud: bool = False) -> Found:
    """Read some of the inputs of a seed, one after the other."""
    warnings.simplefilter("ignore")
    made = seeds()
    names, layouts = sorted(made), {name: layout_of(content) for name, content in made.items()}
    good = io.BytesIO()
    places = {"ImagePositionPatient": [0, 0, 7.5], "SOPInstanceUID": "1.2.826.0.1.3680043.10.1.4"}
    plain_slice(**places).save_as(good, enforce_file_format=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        bench = Bench(work=Path(folder).resolve(), neighbour=good.getvalue())
        # this imports what is imported late, too
        found = Found(unharmed={name: bench.read(made[name], beside=False)[0] for name in names})
        for index in inputs:
            name = names[index % len(names)]
            kind, content = mutated(name, made[name], layouts[name], np.random.default_rng([seed, index]))
            start = time.monotonic()
            outcome, reason = bench.read(content, beside=index % 3 == 0)
            found.slowest = max(found.slowest, time.monotonic() - start)
            found.outcomes[name, outcome] += 1
            found.refusals[kind_of(reason)] += outcome == "refused"
            found.violations += outcome == "violation"
            if outcome == "violation" or aloud:
                said = reason if aloud else reason.splitlines()[0]
                print(f"input {index} ({name}, {kind}): {outcome} {said}", flush=True)
            if (done := found.outcomes.total()) % 500 == 0:
                print(f"inputs {inputs}: {done} read, {found.violations} violations", file=sys.stderr, flush=True)
    shared_decoders().close()
    own, child = (resource.getrusage(who).ru_maxrss << 10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    found.peaks = (own, child)
    return found


def run(args: argparse.Namespace) -> int:
    """Read all inputs, print the table; return 1 where there is a violation."""
    began = time.monotonic()
    if args.only is not None:
        found = examine(args.seed, range(args.only, args.only + 1), aloud=True)
    elif args.jobs == 1:
        found = examine(args.seed, range(args.inputs))
    else:
        tasks = [(args.seed, range(job, args.inputs, args.jobs)) for job in range(args.jobs)]
        with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
            found, *others = pool.starmap(examine, tasks)
        for other in others:
            found.add(other)
    print_table(found)
    print(f"slowest input {found.slowest:.1f} s; {time.monotonic() - began:.0f} s in all, {args.jobs} at a time")
    return int(found.violations > 0 or sum(found.peaks) > MOST_BYTES)


def print_table(found: Found) -> None:
    """Print outcomes by seed file, kinds of refusal, violations and memory."""
    print("| made from | as it is | inputs | results | refused in one line | violations |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, first in [*found.unharmed.items(), ("all", "")]:
        row = [sum(n for (of, what), n in found.outcomes.items() if name in (of, "all") and what == k) for k in KINDS]
        print(f"| {name} | {first} | {sum(row)} | {row[0]} | {row[1]} | {row[2]} |")
    print(f"\n{len(found.refusals)} kinds of refusal, the most frequent:")
    for text, count in found.refusals.most_common(12):
        print(f"{count:>7}  {text}")
    limits = sum(n for text, n in found.refusals.items() if text.startswith(("the decoder", "decoding its pixels")))
    print(f"{limits:>7}  of all: the decoder crashed or was stopped at a limit, and another was started")
    own, child = found.peaks
    print(f"\n{found.violations} violations; peak memory {own / 1e6:.0f} MB, of the decoder {child / 1e6:.0f} MB")


KINDS = ("result", "refused", "violation")


def main() -> int:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="number of one input, to see it again")
    parser.add_argument("--jobs", type=int, default=1, help="processes that read at the same time")
    args = parser.parse_args()
    return run(args)


if __name__ == "__main__":
    sys.exit(main())
