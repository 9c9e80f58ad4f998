"""watch: a run as it goes on, or as it went, from what it writes beside itself. No site is asked."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from pathlib import Path

from slicestream.errors import OptionError
from slicestream.progress.following import Follower
from slicestream.progress.screen import line, plain, screen
from slicestream.progress.state import OVER

_EVERY_S = 0.5
_TAIL = 6  # lines of the log of the job that runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `slicestream watch`."""
    parser.epilog = "example: slicestream watch runs/hybrid"
    add = parser.add_argument
    add(
        "run",
        type=Path,
        nargs="?",
        default=Path("runs"),
        metavar="RUN",
        help="folder of a run, or one that holds runs: the newest of them (default: %(default)s)",
    )
    add("--once", action="store_true", help="show how it stands now and end")
    add("--json", action="store_true", help="print a line of JSON for each thing that happens")
    add("--log", metavar="JOB", help="print what a job on a site has printed, and go on while it runs: train, infer/0")


def run(args: argparse.Namespace) -> None:
    """Show the run until it ends. Raises OptionError."""
    follower = Follower(args.run)
    if args.log:
        _log(follower, args.log, once=args.once)
    elif args.json or not (args.once or sys.stdout.isatty()):
        _lines(follower, as_json=args.json, once=args.once)
    else:
        _live(follower, once=args.once)


def _lines(follower: Follower, *, as_json: bool, once: bool) -> None:
    while True:
        for event in follower.news():
            text = json.dumps(event) if as_json else line(event, follower.run)
            if text:
                print(text, flush=True)
        if once or follower.over():
            return
        time.sleep(_EVERY_S)


def _live(follower: Follower, *, once: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    deque(follower.news(), maxlen=0)
    if once or follower.over():
        console.print(screen(follower.run, _tail(follower), now=time.time()))
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            deque(follower.news(), maxlen=0)
            live.update(screen(follower.run, _tail(follower), now=time.time()), refresh=True)
            if follower.over():
                return
            time.sleep(_EVERY_S)


def _tail(follower: Follower) -> tuple[str, list[str]]:
    """Return the job that began last of those that run, or failed, and its last lines."""
    told = [job for job in follower.run.jobs.values() if job.state not in ("completed", "queued")]
    for job in sorted(told, key=lambda one: one.started, reverse=True):
        try:
            with follower.log(job.name).open(encoding="utf-8", errors="replace") as file:
                return job.name.strip("/"), [text.rstrip("\n") for text in deque(file, maxlen=_TAIL)]
        except OSError:
            continue
    return "", []


def _log(follower: Follower, name: str, *, once: bool) -> None:
    job, read = f"/{name.strip('/')}", 0
    while True:
        deque(follower.news(), maxlen=0)
        path = follower.log(job)
        if path.is_file():
            with path.open("rb") as file:
                file.seek(read)
                said = file.read()
            read += len(said)
            for text in said.decode(errors="replace").splitlines():
                print(plain(text), flush=True)
        known = follower.run.jobs.get(job)
        if once or follower.over() or (known is not None and known.state in OVER):
            break
        time.sleep(_EVERY_S)
    if not read:
        logs = ", ".join(sorted(one.stem for one in path.parent.glob("*.log"))) or "none"
        raise OptionError(f"--log {name}: {follower.path} keeps no log of it; need a job that ran on a site: {logs}.")
