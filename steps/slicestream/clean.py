"""clean: what killed runs left on the sites, removed; of this user's own runs, from this machine, only."""

from __future__ import annotations

import argparse

from slicestream.errors import OptionError, SiteError
from slicestream.sites.leftovers import removals
from slicestream.sites.runs import RUN_ID, abandoned_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--run", metavar="ID", help="only this run, 12 digits of 0-9a-f")
    parser.epilog = "example: slicestream clean"


def run(args: argparse.Namespace) -> None:
    """Remove jobs, work folders and Kubernetes objects of killed runs; print a line for each."""
    if args.run and not RUN_ID.fullmatch(args.run):
        raise OptionError(f"--run {args.run}: no run id; need 12 digits of 0-9a-f. Leave it out for all killed runs.")
    nothing, failed = True, None
    for killed in abandoned_runs():
        if args.run and killed.id != args.run:
            killed.release()
            continue
        try:
            for line in removals(killed):
                print(f"removed {line}", flush=True)
                nothing = False
            killed.close()
        except SiteError as error:
            failed = failed or error
        finally:
            killed.release()  # one that failed stays registered, for the next time
    if failed is not None:
        raise failed
    if nothing:
        print("nothing left behind")
