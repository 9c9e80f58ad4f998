"""push: a set of results to an image archive, read back and compared."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from slicestream.archive.address import parse_address
from slicestream.archive.archive import archive_at
from slicestream.archive.flags import access_of, add_access_arguments
from slicestream.archive.instances import LocalFile, local_files
from slicestream.archive.sending import Sent, send
from slicestream.errors import ArchiveError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="DICOM files, or folders of them")
    parser.add_argument(
        "--to", required=True, metavar="ADDRESS", help="https://host/dicom-web or dicom://AET@host:port"
    )
    add_access_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.epilog = "example: slicestream push --to https://archive.example/dicom-web runs/segment/segmentations"


def run(args: argparse.Namespace) -> None:
    """Send, read back, and print what came of it; what failed is named, one line each, on stderr."""
    address = parse_address(args.to, flag="--to", insecure=args.insecure)
    files, passed_over = local_files(args.files)
    if passed_over:
        print(f"{len(passed_over)} files passed over, not DICOM: {passed_over[0]}, …", file=sys.stderr)
    with archive_at(address, access_of(args)) as archive:
        sent = send(archive, files, where=str(address), retries=args.retries)
        service = archive.reads_back
    by_uid = {file.instance.uid: file for file in files}
    for uid, reason in sent.failures.items():
        print(f"{by_uid[uid].path}: {uid}: {reason}", file=sys.stderr)
    for uid, reason in sent.unchecked.items():
        print(f"{by_uid[uid].path}: not checked: {reason}", file=sys.stderr)
    good = [file for file in files if file.instance.uid not in sent.failures]
    print(_document(good, sent, service) if args.json else _line(good, sent, service), flush=True)
    if sent.failures:
        raise ArchiveError(
            f"{address}: {len(sent.failures)} of {len(files)} instances are not there as they were sent; the lines "
            "above say why. Mend that, then run again: what is there already does no harm."
        )


def _line(good: list[LocalFile], sent: Sent, service: str) -> str:
    checked = len(good) - len(sent.unchecked)
    rest = f", {len(sent.unchecked)} not checked" if sent.unchecked else ""
    size = sum(file.size for file in good) / 1e6
    return f"{len(good)} instances stored, {size:.1f} MB; {checked} read back by {service} and equal{rest}"


def _document(good: list[LocalFile], sent: Sent, service: str) -> str:
    stored = [
        {
            "file": str(file.path),
            "sop_class": file.instance.sop_class,
            "sop_instance": file.instance.uid,
            "bytes": file.size,
            "checked": None if file.instance.uid in sent.unchecked else service,
        }
        for file in good
    ]
    return json.dumps({"stored": stored, "failed": sent.failures}, indent=2)
