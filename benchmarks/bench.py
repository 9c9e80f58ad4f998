"""All comparisons with the peers, in turns in one run: results as JSON, as a table and as a plot.

    make peers && make bench                                                  # within an hour, docs/performance.md
    .venv/bin/python benchmarks/bench.py --only preprocess --rounds 9         # one of them, into runs/bench
    .venv/bin/python benchmarks/bench.py --size trial                         # does it run? says nothing about speed

A comparison that was measured stays in results.json until it is measured again, so that `--only` adds to a run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import show
from harness import ROOT, Comparison, ContenderError, machine, run

SIZES = ("trial", "bench", "full")
FAILED = "it failed"
FILES = ("preprocess", "inference", "training", "start", "workflows", "transfers", "growth")


def main() -> int:
    """Measure what was asked for and write it."""
    args = _arguments()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "steps"), os.environ.get("PYTHONPATH")]))
    results = args.out / f"results-{args.size}.json"
    known: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    failed = 0
    for file in FILES:
        for name, measured in _measured_of(file, args):
            if known.get(file, {}).get("how") == "":  # of a day when its inputs could not be made
                del known[file]
            failed += "missing" in measured and measured["missing"].startswith(FAILED)
            known[name] = measured
            results.write_text(json.dumps(known, indent=1) + "\n")
    names = [name for file in FILES for name in known if name.split("-")[0] == file]
    known = {name: known[name] for name in names}
    print(show.table(known))
    if args.page:
        show.write_page(args.page, known)
    return 1 if failed else 0


def _measured_of(file: str, args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and result of a file's comparisons; what fails is told in its place, and the next file is measured."""
    try:
        for comparison in _chosen(file, args):
            try:
                yield comparison.name, _measured(comparison, args)
            except ContenderError as error:
                yield comparison.name, {"how": comparison.how, "missing": f"{FAILED}: {error}"}
    except Exception as error:  # whatever goes wrong with the inputs
        traceback.print_exc()
        yield file, {"how": "", "missing": f"{FAILED}: its inputs cannot be made ({error})"}


def _measured(comparison: Comparison, args: argparse.Namespace) -> dict[str, Any]:
    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    programs = (Path(contender.command[0]) for contender in comparison.contenders)
    peers = "" if all(program.exists() for program in programs) else "a peer is not installed (make peers)"
    if missing := comparison.missing or peers:
        tell(f"{comparison.name}: not measured: {missing}")
        return {"how": comparison.how, "missing": missing}
    measured = run(comparison, rounds=args.rounds, work=args.out / "work", tell=tell)
    return {**measured, "size": args.size, "machine": machine()}


def _chosen(file: str, args: argparse.Namespace) -> Iterator[Comparison]:
    """Make the inputs of a file's comparisons only when their turn comes."""
    wanted = {name for name in args.only or (file,) if name.split("-")[0] == file}
    if not wanted:
        return
    for one in importlib.import_module(f"comparisons.{file}").comparisons(args.size, args.out / "inputs"):
        if one.name in wanted or file in wanted:
            yield one
        wanted.discard("" if one.name == file else one.name)
        if not wanted:
            return


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"{', '.join(FILES)}, or the name of one comparison")
    parser.add_argument("--rounds", type=int, default=5, help="calls of each contender (default 5)")
    parser.add_argument("--size", choices=SIZES, default="bench", help="how much each works on (default: bench)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/bench", help="for inputs and results (runs/bench)")
    parser.add_argument("--page", type=Path, help="page whose table and plot are to be replaced")
    args = parser.parse_args()
    if args.page and (args.size == "trial" or args.rounds < 5):
        parser.error("--page: a trial or fewer than 5 rounds are no measurement. Leave --page out.")
    unknown = {name.split("-")[0] for name in args.only or ()} - set(FILES)
    if args.rounds < 1 or unknown:
        parser.error(f"--rounds {args.rounds}, --only {', '.join(sorted(unknown))}: need 1 round or more, known names.")
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    return args


if __name__ == "__main__":
    sys.exit(main())
