"""deidentify: DICOM files without what tells who they are of, to hand to others (DICOM PS3.15 Annex E)."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import UID

from slicestream import __version__
from slicestream.dicom.burned_in import shows_a_head, why_aside
from slicestream.dicom.classify import has_dicm
from slicestream.dicom.confidentiality import Options, edition
from slicestream.dicom.deidentification import Deidentifier, read_whole, write_deidentified
from slicestream.dicom.files import needed
from slicestream.dicom.pseudonyms import read_key
from slicestream.errors import OutputError, StudyError
from slicestream.volumes.files import write_text
from slicestream.volumes.staging import staged

_PROGRESS_EVERY_S = 5.0
_NAMES_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--dicom", type=Path, required=True, metavar="FOLDER", help="DICOM files in any nesting")
    parser.add_argument(
        "--pseudonym-key", type=Path, required=True, metavar="FILE", help="file with the site's secret, as preprocess"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write into")
    parser.add_argument(
        "--modified-dates", action="store_true", help="keep dates, moved into the past by a secret amount per patient"
    )
    parser.add_argument(
        "--retain-characteristics", action="store_true", help="keep sex, age, size, weight and the like"
    )
    parser.add_argument(
        "--retain-device", action="store_true", help="keep which machine it was: serial number, station"
    )
    parser.add_argument("--retain-uids", action="store_true", help="keep UIDs: whoever has the originals can join them")
    parser.add_argument(
        "--accept-unstated",
        action="store_true",
        help="hand on captures and derived images that do not say whether text is burned into them; look at them first",
    )
    parser.add_argument("--strict", action="store_true", help="write nothing where a file has to be set aside")
    parser.epilog = "example: slicestream deidentify --dicom study --pseudonym-key key --out delivery"


def run(args: argparse.Namespace) -> None:
    """Write `<pseudonym>/<series>/<instance>.dcm` and report.json: all of them or none."""
    if not args.dicom.is_dir():
        raise StudyError(f"{args.dicom}: not a folder; need a folder with DICOM files. Check the name.")
    options = Options(
        dates=args.modified_dates,
        patient=args.retain_characteristics,
        device=args.retain_device,
        uids=args.retain_uids,
    )
    worker = Deidentifier(read_key(args.pseudonym_key), options)
    paths = _files(args.dicom, args.out)
    with staged(args.out) as room:
        delivery = _Delivery(room=room, worker=worker, accept_unstated=args.accept_unstated)
        told = time.monotonic()
        for number, path in enumerate(paths, start=1):
            delivery.add(path)
            if time.monotonic() - told > _PROGRESS_EVERY_S:
                told = time.monotonic()
                print(f"deidentify: {number} of {len(paths)} files", file=sys.stderr)
        _tell(delivery)
        delivery.check(args.dicom, strict=args.strict)
        write_text(room / "report.json", json.dumps(delivery.report(), indent=1) + "\n")
    print(delivery.summary())


@dataclass(kw_only=True)
class _Delivery:
    """What has been written so far, and what was left out. Names and UIDs of the source stay in memory."""

    room: Path
    worker: Deidentifier
    accept_unstated: bool
    written: set[str] = field(default_factory=set)
    patients: set[str] = field(default_factory=set)
    series: set[str] = field(default_factory=set)
    kinds: Counter[str] = field(default_factory=Counter)
    aside: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    heads: int = 0

    @property
    def left_out(self) -> int:
        """Number of files that were set aside."""
        return sum(len(paths) for paths in self.aside.values())

    def add(self, path: Path) -> None:
        """De-identify one file, or note why not. Raises StudyError where it is damaged or unreadable."""
        if not has_dicm(path):
            self.aside["not DICOM"].append(path)
            return
        dataset = read_whole(path)
        reason = why_aside(dataset, path, accept_unstated=self.accept_unstated)
        if reason is None and str(needed(dataset, "SOPInstanceUID", path)) in self.written:
            reason = "a second file of the same SOP instance"
        if reason is not None:
            self.aside[reason].append(path)
            return
        self._write(dataset, path)

    def _write(self, dataset: Dataset, path: Path) -> None:
        source, head = str(dataset.SOPInstanceUID), shows_a_head(dataset, path)
        needed(dataset, "SeriesInstanceUID", path)
        patient = self.worker.deidentify(dataset, path)
        for name in ("SeriesInstanceUID", "SOPInstanceUID"):
            if not UID(str(dataset[name].value)).is_valid:  # it becomes a file name
                raise StudyError(f"{path}: {name} is not one valid UID. Correct the header.")
        series = str(dataset.SeriesInstanceUID)
        write_deidentified(dataset, self.room / patient / series / f"{dataset.SOPInstanceUID}.dcm", path)
        self.written.add(source)
        self.patients.add(patient)
        self.series.add(series)
        kind = dataset.SOPClassUID.name
        self.kinds["a private SOP class" if kind == dataset.SOPClassUID else kind] += 1
        self.heads += head

    def check(self, folder: Path, *, strict: bool) -> None:
        """Raise StudyError where there is nothing to hand on, or, if `strict`, where a file was set aside."""
        if not self.written:
            raise StudyError(
                f"{folder}: no file to hand on ({self.left_out} set aside); need DICOM files. See the lines above."
            )
        if strict and self.left_out:
            raise StudyError(
                f"{folder}: {self.left_out} files would be set aside, and --strict was given; nothing was written. "
                "Remove them, or leave --strict out."
            )

    def report(self) -> dict[str, object]:
        """Return what may be told to whoever gets the files: no name, no value, no UID of the source."""
        options = self.worker.options
        done: dict[str, dict[str, int]] = defaultdict(dict)
        for (attribute, action), count in sorted(self.worker.counts.items()):
            done[attribute][action] = count
        return {
            "made_by": f"SliceStream {__version__}",
            "standard": f"DICOM PS3.15 {edition()}, Annex E",
            "profile_and_options": [f"{value} {meaning}" for value, meaning in options.codes()],
            "not_done": "no pixel is cleaned; no private attribute is kept; descriptions are removed, not cleaned",
            "patients": len(self.patients),
            "series": len(self.series),
            "files": dict(sorted(self.kinds.items())),
            "images_of_heads": self.heads,
            "set_aside": {reason: len(paths) for reason, paths in sorted(self.aside.items())},
            "attributes": done,
        }

    def summary(self) -> str:
        """Return what is said on stdout."""
        totals: Counter[str] = Counter()
        for (_, action), count in self.worker.counts.items():
            totals[action] += count
        options = "; ".join(meaning for _, meaning in self.worker.options.codes())
        lines = [
            f"{len(self.patients)} patients, {len(self.series)} series, {len(self.written)} files; "
            f"{self.left_out} set aside",
            f"DICOM PS3.15 {edition()}: {options}",
            f"elements: {', '.join(f'{count} {action}' for action, count in sorted(totals.items()))}",
        ]
        if self.heads:
            lines.append(
                f"{self.heads} images show a head by their header: a face can be rebuilt from a stack of them."
            )
        return "\n".join(lines)


def _files(folder: Path, out: Path) -> list[Path]:
    """Return all files, in a fixed order. Raises OutputError where the results would lie among them."""
    if out.resolve() == folder.resolve():
        raise OutputError(
            f"{out}: the folder of the source; need another, to hand on as a whole. Choose another --out."
        )
    found = []
    for where, folders, names in os.walk(folder):
        folders.sort()
        found += [Path(where, name) for name in sorted(names)]
    return [path for path in found if path.is_file()]


def _tell(delivery: _Delivery) -> None:
    """Say on stderr, which stays here, which files were set aside."""
    for reason, paths in sorted(delivery.aside.items()):
        names = ", ".join(str(path) for path in paths[:_NAMES_SHOWN])
        more = f" and {len(paths) - _NAMES_SHOWN} more" if len(paths) > _NAMES_SHOWN else ""
        print(f"deidentify: set aside, {reason}: {names}{more}", file=sys.stderr)
