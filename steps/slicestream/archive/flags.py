"""The flags that push and pull share."""

from __future__ import annotations

import argparse
from pathlib import Path

from slicestream.archive.archive import CALLING, Access


def add_access_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("--ca", type=Path, metavar="FILE", help="PEM file of the authority to trust")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="PEM file with our certificate and key, mode 0600")
    parser.add_argument(
        "--credentials", type=Path, metavar="FILE", help="file in the form of ~/.netrc, mode 0600, in its place"
    )
    parser.add_argument("--aet", default=CALLING, metavar="TITLE", help="our AE title (dicom:// only)")
    parser.add_argument("--retries", type=_count, default=4, metavar="N", help="how often to try again what may pass")
    parser.add_argument("--insecure", action="store_true", help="allow an unencrypted connection to another machine")


def access_of(args: argparse.Namespace) -> Access:
    """Return what they say."""
    return Access(ca=args.ca, certificate=args.cert, credentials=args.credentials, calling=args.aet)


def _count(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 20:
        raise argparse.ArgumentTypeError("need 0 to 20")
    return number
