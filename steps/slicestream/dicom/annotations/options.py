"""The options of annotations on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from slicestream.dicom.annotations.consensus import Consensus
from slicestream.dicom.annotations.find import Choice
from slicestream.errors import OptionError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--annotations",
        type=Path,
        help="folder to look for annotations in, and nowhere else; without it they are looked for in the cohort",
    )
    parser.add_argument(
        "--no-annotations",
        action="store_true",
        help="look for none: what was drawn on new studies (organs, say) is nothing to train on or to score with",
    )
    parser.add_argument("--structure", help="name or pattern of the structure to take, of formats that have several")
    parser.add_argument(
        "--consensus",
        default="majority",
        help="how LIDC-IDRI's readers become one: majority (of those who drew the nodule; default), any, all, level-N "
        "(N readers at least) or staple",
    )
    parser.add_argument(
        "--minimum-readers", type=int, default=1, help="leave out nodules that fewer readers drew (default: 1)"
    )


def choice_of(args: argparse.Namespace) -> Choice:
    """Return what of the annotations is asked for. Raises OptionError."""
    consensus = Consensus(rule=args.consensus, minimum_readers=args.minimum_readers)
    return Choice(structure=args.structure, consensus=consensus)


def folders_of(args: argparse.Namespace) -> list[Path]:
    """Return where annotations are looked for: where --annotations says, else beside the scans. Raises OptionError."""
    if args.no_annotations:
        if args.annotations is not None:
            raise OptionError("--no-annotations and --annotations; need one of them. Leave the other out.")
        return []
    if args.annotations is not None:
        return [args.annotations]
    return [folder for folder in (args.cohort, args.backgrounds) if folder is not None]


def recorded(args: argparse.Namespace) -> dict[str, Any]:
    """Return what a run record may hold of them: no pattern, which could name somebody."""
    return {"consensus": args.consensus, "minimum_readers": args.minimum_readers}
