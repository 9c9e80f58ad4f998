"""check: what is wrong with workflow files and with sites, found before a run does."""

from __future__ import annotations

import argparse
from pathlib import Path

from slicestream.errors import SiteError
from slicestream.sites.bindings import check_bindings
from slicestream.sites.preflight import findings
from slicestream.sites.validation import read_streamflow, validate_cwl


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="StreamFlow files, and CWL files (.cwl)")
    parser.add_argument("--sites", action="store_true", help="also reach every deployment of the StreamFlow files")
    parser.epilog = "example: slicestream check streamflow.yml workflows/main.cwl"


def run(args: argparse.Namespace) -> None:
    """Print a line for each file, and with --sites for each thing found out about its deployments."""
    for path in args.files:
        if path.suffix == ".cwl":
            validate_cwl(path)
            print(f"{path}: ok", flush=True)
            continue
        config = read_streamflow(path)
        check_bindings(config, where=str(path))
        print(f"{path}: ok", flush=True)
        if args.sites:
            _look_at_sites(config, path)


def _look_at_sites(config: dict[str, object], path: Path) -> None:
    bad = 0
    for finding in findings(config, where=path):
        print(f"{path}: {finding}", flush=True)
        bad += finding.verdict == "to do"
    if bad:
        raise SiteError(f"{path}: {bad} of the lines above say what is to be done before a run")
