"""pull: one study from an image archive, as the input of a workflow."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from slicestream.archive.address import parse_address
from slicestream.archive.archive import archive_at
from slicestream.archive.fetching import AmbiguousError, Wanted, fetch, find
from slicestream.archive.flags import access_of, add_access_arguments
from slicestream.archive.instances import is_uid
from slicestream.errors import OptionError
from slicestream.volumes.staging import staged


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="ADDRESS",
        help="https://host/dicom-web or dicom://AET@host:port",
    )
    parser.add_argument("--study", metavar="UID", help="Study Instance UID; this or --patient-id")
    parser.add_argument("--patient-id", metavar="ID", help="the study of this patient; refused where there are several")
    parser.add_argument("--series", metavar="UID", help="only this series of the study")
    parser.add_argument("--modality", metavar="NAME", help="only series of this modality, such as CT")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for <series>/<instance>.dcm")
    add_access_arguments(parser)
    parser.epilog = "example: slicestream pull --from dicom://ORTHANC@localhost:4242 --study 1.2.3 --out study"


def run(args: argparse.Namespace) -> None:
    """Fetch all that matches, or nothing; print how much."""
    address = parse_address(args.source, flag="--from", insecure=args.insecure)
    wanted = _wanted(args)
    with archive_at(address, access_of(args)) as archive:
        try:
            series = find(archive, wanted, where=str(address), retries=args.retries)
        except AmbiguousError as error:
            print(*error.lines, sep="\n", file=sys.stderr)
            raise
        with staged(args.out) as folder:
            size = fetch(archive, series, folder, where=str(address), retries=args.retries)
            count = sum(1 for _ in folder.rglob("*.dcm"))
    print(f"{args.out}: {count} instances in {len(series)} series, {size / 1e6:.1f} MB", flush=True)


def _wanted(args: argparse.Namespace) -> Wanted:
    for flag, uid in (("--study", args.study), ("--series", args.series)):
        if uid is not None and not is_uid(uid):
            raise OptionError(f"{flag} {uid}: no DICOM UID; need digits and dots, such as 1.2.840.113.")
    if bool(args.study) == bool(args.patient_id):
        raise OptionError("need --study or --patient-id, one of the two")
    if args.patient_id and set(args.patient_id) & set("*?\\"):
        raise OptionError("--patient-id: holds *, ? or \\, which stand for other patients too. Give the whole ID.")
    return Wanted(
        study=args.study or "",
        patient_id=args.patient_id or "",
        series=args.series or "",
        modality=args.modality or "",
    )
