"""The command line: a sub-command per step and a few about runs, each imported only when it is asked for."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence

from slicestream import __version__
from slicestream.errors import SliceStreamError

TYPE_CHECKING = False  # importing typing takes longer than all of ours
if TYPE_CHECKING:
    from typing import Any, NoReturn

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


SHELLS = ("bash", "zsh", "fish")
READER_GONE = 141  # what a shell says of a program that SIGPIPE ended


class _NoReaderError(Exception):
    """Nobody reads our results any more, as after `| head`; no connection of ours broke."""


class _Parser(argparse.ArgumentParser):
    """One line for what cannot be used, as everywhere; examples as they are, to be copied."""

    def __init__(self, **more: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **more)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {_one_line(message)}; see '{self.prog} --help'\n")


class _Completion(argparse.Action):
    """Print what a shell reads to complete our command lines."""

    def __call__(self, parser: argparse.ArgumentParser, _: object, shell: Any, __: object = None) -> NoReturn:
        from pathlib import Path

        import shtab

        whole = _parser(*COMMANDS)
        for command in _commands(whole).values():
            for action in command._actions:
                if action.type is Path:
                    action.complete = shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(whole, shell))
        parser.exit()


def _parser(*steps: str | None) -> argparse.ArgumentParser:
    """Return the parser of the command line, with the flags of these steps alone."""
    parser = _Parser(
        prog="slicestream",
        description="Segment lung nodules in CT: each sub-command is one step of the workflows.",
        epilog="example: slicestream phantom --patients 6 --out cohort",
    )
    parser.add_argument("--version", action="version", version=f"slicestream {__version__}")
    parser.add_argument(
        "--completion", action=_Completion, choices=SHELLS, help="print the completions for this shell and exit"
    )
    commands = parser.add_subparsers(dest="step", metavar="STEP", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name in steps:
            importlib.import_module(f"slicestream.{name}").add_arguments(command)
    return parser


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return next(dict(action.choices or {}) for action in parser._actions if action.dest == "step")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one step. Return 0, 2 for bad input or an unusable output place, 130 after Ctrl-C, 141 without a reader."""
    argv = list(sys.argv[1:] if argv is None else argv)
    step = argv[0] if argv and argv[0] in COMMANDS else None
    name = f"slicestream {step}" if step else "slicestream"
    try:
        _run(argv, step)
    except SliceStreamError as error:
        return _refuse(f"{name}: {_one_line(str(error))}")
    except ModuleNotFoundError as error:
        if str(error.name).startswith("slicestream"):
            raise
        return _refuse(
            f"{name}: needs the library {error.name}, which is not here. Run it as 'make setup' installs it."
        )
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        return _refuse(
            f"{name}: {error.filename or 'output'}: {error.strerror}; nothing was kept half-written. "
            "Free space or choose another --out, then run again."
        )
    except _NoReaderError:
        return READER_GONE
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    return 0


def _run(argv: list[str], step: str | None) -> None:
    try:
        parser = _parser(step)
        args, unknown = parser.parse_known_args(argv)
        if unknown:
            _commands(parser)[args.step].error(f"unknown arguments: {' '.join(unknown)}")
        importlib.import_module(f"slicestream.{args.step}").run(args)
    finally:
        _flush_results()


def _flush_results() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        # else Python tries again when it ends, and complains
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise _NoReaderError from None
        raise


def _refuse(line: str) -> int:
    print(line, file=sys.stderr)
    return 2


def _one_line(message: str) -> str:
    # a header's value or a file's name may hold anything, even what steers a terminal
    return "".join(character if character.isprintable() else " " for character in message)


if __name__ == "__main__":
    sys.exit(main())
