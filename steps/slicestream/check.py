"""check: what is wrong with workflow files and with sites, found before a run does."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from slicestream.errors import SiteError, WorkflowError
from slicestream.sites.bindings import check_bindings
from slicestream.sites.findings import LAPTOP, Finding, Row, Table, as_json
from slicestream.sites.preflight import findings, names
from slicestream.sites.targets import targets
from slicestream.sites.validation import read_streamflow, validate_cwl


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        default=[Path("streamflow.yml")],
        metavar="FILE",
        help="StreamFlow files, and CWL files (.cwl); streamflow.yml if none is given",
    )
    parser.add_argument("--sites", action="store_true", help="also reach every deployment of the StreamFlow files")
    parser.add_argument("--no-link", action="store_true", help="with --sites: measure no link; it costs 8 MB of each")
    parser.add_argument(
        "--images", type=Path, help="folder of our images, to compare with; the nearest containers/images if not given"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of the table")
    parser.epilog = "example: slicestream check --sites streamflow.yml"


def run(args: argparse.Namespace) -> None:
    """Print what was looked at, row by row. Raises SiteError if something is to be done before a run."""
    found: list[Finding] = []
    configs: dict[Path, dict[str, Any]] = {}
    for path in args.files:
        config, rows = _look_at_file(path)
        found += rows
        if config is not None and not any(one.verdict == "to do" for one in rows):
            configs[path] = config
    table = None if args.json else Table([name for config in configs.values() for name in names(config)])
    for one in found:
        if table:
            table.add(one)
    for path, config in configs.items() if args.sites else []:
        for one in findings(config, where=path, images=args.images, link=not args.no_link):
            found.append(one)
            if table:
                table.add(one)
    if args.json:
        print(as_json(found), flush=True)
    _conclude(found)


def _conclude(found: list[Finding]) -> None:
    count = {verdict: sum(one.verdict == verdict for one in found) for verdict in ("to do", "note")}
    if count["to do"]:
        raise SiteError(
            f"{count['to do']} of {len(found)} rows say what is to be done before a run; do it, check again"
        )
    print(f"slicestream check: {len(found)} rows, {count['note']} notes, nothing to do", file=sys.stderr)


def _look_at_file(path: Path) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Return the content of a StreamFlow file, None for CWL, and what is found about it."""
    config, found = None, []
    try:
        if path.suffix == ".cwl":
            validate_cwl(path)
            found.append((LAPTOP, _cwl_row(path)))
        else:
            config = read_streamflow(path)
            found.append((LAPTOP, ("schema", "ok", f"{path}: StreamFlow {version('streamflow')} takes it")))
            found += _content(config, path)
    except WorkflowError as error:
        found.append((LAPTOP, ("CWL" if path.suffix == ".cwl" else "schema", "to do", str(error))))
    rows = [
        Finding(file=str(path), deployment=name, looked_at=looked_at, verdict=verdict, line=line)
        for name, (looked_at, verdict, line) in found
    ]
    return config, rows


def _content(config: dict[str, Any], path: Path) -> Iterator[tuple[str, Row]]:
    for file in sorted({os.path.normpath(path.parent / one["config"]["file"]) for one in config["workflows"].values()}):
        try:
            validate_cwl(Path(file))
            yield LAPTOP, _cwl_row(Path(file))
        except WorkflowError as error:
            yield LAPTOP, ("CWL", "to do", str(error))
    try:
        check_bindings(config, where=str(path))
        yield LAPTOP, ("identities", "ok", f"{path}: what sees them stays on this machine")
    except WorkflowError as error:
        yield LAPTOP, ("identities", "to do", str(error))
    yield from targets(config, where=path)


def _cwl_row(path: Path) -> Row:
    return "CWL", "ok", f"{path} is valid"
