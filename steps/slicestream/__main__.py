"""The command line: a sub-command per step and a few about runs, each imported only when it is asked for."""

from __future__ import annotations

import argparse
import errno
import importlib
import sys
from collections.abc import Sequence

from slicestream import __version__
from slicestream.errors import SliceStreamError

# A step module has add_arguments(parser) and run(args).
STEPS = {
    "phantom": "write a synthetic chest CT cohort with nodules of known volume",
    "preprocess": "DICOM studies to volumes, training slices and an identity map",
    "split": "divide the cohort by patient and pack the training shards",
    "train": "train the segmentation network and write the model",
    "infer": "find candidates in volumes with a model (ONNX, CPU)",
    "evaluate": "compare masks with references, every metric by name",
    "export": "masks to DICOM SEG, overlays and a nodule table",
    "view": "a folder that shows volumes and masks in a browser",
    "report": "one HTML file that shows the run",
}
# No part of a run: no workflow has a tool of that name.
COMMANDS = {
    **STEPS,
    "check": "find what is wrong with workflow files and sites before a run does",
    "watch": "a run as it goes on: steps, sites, queue, progress, logs",
    "clean": "remove what killed runs left on the sites",
    "pull": "fetch a study from an image archive (DICOMweb or DIMSE)",
    "push": "send results to an image archive (DICOMweb or DIMSE) and read them back",
    "crate": "a run as RO-Crate: what was run where, with no identity in it",
    "deidentify": "DICOM files to hand to others, without what tells who they are of (PS3.15)",
}
STORAGE_ERRORS = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.ENOENT}


def _parser(step: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slicestream",
        description="Segment lung nodules in CT: each sub-command is one step of the workflows.",
        epilog="example: slicestream phantom --patients 6 --out cohort",
    )
    parser.add_argument("--version", action="version", version=f"slicestream {__version__}")
    commands = parser.add_subparsers(dest="step", metavar="STEP", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == step:
            importlib.import_module(f"slicestream.{name}").add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one step. Return 0, 2 for bad input or an unusable output place, 130 after Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    step = argv[0] if argv and argv[0] in COMMANDS else None
    args = _parser(step).parse_args(argv)
    try:
        importlib.import_module(f"slicestream.{args.step}").run(args)
    except SliceStreamError as error:
        print(f"slicestream {args.step}: {_one_line(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        print(
            f"slicestream {args.step}: {error.filename or 'output'}: {error.strerror}; nothing was kept half-written. "
            "Free space or choose another --out, then run again.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(f"slicestream {args.step}: interrupted", file=sys.stderr)
        return 130
    return 0


def _one_line(message: str) -> str:
    # a header's value or a file's name may hold anything, even what steers a terminal
    return "".join(character if character.isprintable() else " " for character in message)


if __name__ == "__main__":
    sys.exit(main())
