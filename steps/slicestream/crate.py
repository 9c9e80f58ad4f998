"""crate: a finished run as a Workflow Run RO-Crate: what was run where, on what, with no identity in it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from slicestream.provenance.run_entities import missing_steps
from slicestream.provenance.runs import read_run
from slicestream.provenance.workflows import read_workflow
from slicestream.provenance.writing import write_crate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `slicestream crate`."""
    parser.epilog = "example: slicestream crate runs/demo --workflow workflows/main.cwl --out run.crate.zip"
    parser.add_argument("folder", type=Path, metavar="RUN", help="folder of a run, finished or not")
    parser.add_argument("--workflow", type=Path, required=True, metavar="FILE", help="the workflow that was run (.cwl)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("run.crate.zip"),
        metavar="FILE",
        help="the crate, a ZIP (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Write the crate; say on stderr what the run did not get to."""
    workflow, done = read_workflow(args.workflow), read_run(args.folder)
    held, described = write_crate(args.out, done, workflow, args.folder)
    unfinished = [*missing_steps(done, workflow), *(one.name for one in done.executions if one.failed)]
    if unfinished:
        print(f"the run is not whole, and the crate says so: {', '.join(unfinished)}", file=sys.stderr)
    places = ", ".join(dict.fromkeys(one.place for one in done.executions))
    print(
        f"{args.out}: {len(done.executions)} executions on {places}; {held} files, {described} more described by hash"
    )
