"""Step `preprocess`: DICOM studies to volumes without identity, training slices and an identity map.

The only reader of the user's DICOM, on the laptop. What it hands on holds voxels, geometry relative to the first
voxel and pseudonyms; the identity map stays.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicestream.dicom.account import Account
from slicestream.dicom.annotations import options
from slicestream.dicom.annotations.find import Annotations, find_annotations, place_of
from slicestream.dicom.annotations.reference import reference_of
from slicestream.dicom.identity import IdentityWriter, part10_files
from slicestream.dicom.manifest import Finding, manifest_text
from slicestream.dicom.pseudonyms import pseudonym, read_key
from slicestream.dicom.series import Series, read_series
from slicestream.dicom.study import Cohort, Patient, find_cohort, share_of
from slicestream.errors import OptionError, StudyError
from slicestream.volumes.cores import available_cores
from slicestream.volumes.files import write_text
from slicestream.volumes.mask import write_mask
from slicestream.volumes.record import RunRecord, recorded
from slicestream.volumes.slices import SliceStack, choose_slices, with_neighbours, write_slices
from slicestream.volumes.staging import staged
from slicestream.volumes.volume import SeriesId, write_voxels

_LIBRARIES = (
    "blosc2",
    "SimpleITK",
    "connected-components-3d",
    "numpy",
    "pydicom",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
    "pyjpegls",
    "python-gdcm",
)
_PROGRESS_EVERY_S = 5.0
_BACKGROUND_MM = 2.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = "example: slicestream preprocess --cohort cohort --pseudonym-key key --out prepared"
    parser.add_argument("--cohort", type=Path, required=True, help="folder: UniToChest layout, or DICOM in any nesting")
    parser.add_argument(
        "--pseudonym-key", type=Path, required=True, help="file with the site's secret, 16 bytes or more"
    )
    parser.add_argument("--share", default="1/1", help="i/n: do the i-th of n shares of whole patients (default: 1/1)")
    parser.add_argument(
        "--negatives",
        type=float,
        default=0.1,
        help="share, 0 to 1, of slices without a mask to train on too, of annotated series (default: 0.1)",
    )
    parser.add_argument(
        "--context",
        type=int,
        default=0,
        help="neighbours on either side to pack with each slice to train on, for recipes that see them (default: 0)",
    )
    parser.add_argument(
        "--backgrounds",
        type=Path,
        help="folder of more scans, in either form, to train on only: all that has no mask in them is shown as "
        "background, so they must hold no nodule that is not drawn",
    )
    parser.add_argument("--exclude", type=Path, help="text file with a PatientID per line: patients to leave out")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="stop, and write nothing, where CT is found that cannot be used (else it is set aside and listed)",
    )
    options.add_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="list what would leave the laptop; write nothing")
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write into (default: here)")


def run(args: argparse.Namespace) -> None:
    """Read the cohort, or the given share of it, and write its artefacts: all of them or none."""
    index, count = _share(args.share)
    shown = _Shown(negatives=args.negatives, context=args.context)
    choice = options.choice_of(args)
    key = read_key(args.pseudonym_key)
    excluded = _excluded(args.exclude)
    cohort = find_cohort(args.cohort, excluded)
    more = _backgrounds(args.backgrounds, excluded, cohort) if args.backgrounds and index == 1 else None
    backgrounds = list(more.patients) if more else []
    patients = share_of(cohort.patients, index, count)
    annotations = find_annotations(options.folders_of(args), cohort, choice)
    account, drawn = Account(strict=args.strict), annotations.paths
    for finding in (*cohort.findings, *(more.findings if more else ())):
        account.set_aside(finding.as_annotation() if finding.path in drawn else finding, listed=index == 1)
    if args.dry_run:
        listed = _all_series(patients, account)
        _print_plan(listed, key, shown, backgrounds, account=account, annotations=annotations)
        _check_usable(account, cohort, args.cohort, patients)
        _tell(cohort, account)
        annotations.tell(_say, cohort, all_series=index == 1)
        return
    tag = f"{index}of{count}"
    with staged(args.out) as room, recorded("preprocess", room, tag=tag) as record:
        at_once = max(1, available_cores() // count)  # shares run side by side on one machine
        share = _Share(room, key, shown, record, account, annotations, at_once)
        with IdentityWriter(_private(room / f"source-{tag}.identity")) as identities:
            share.write_patients(patients, identities)
        _check_usable(account, cohort, args.cohort, patients)
        share.write_backgrounds(backgrounds)
        _tell(cohort, account)
        share.write_lists(tag, f"{index}/{count}", cohort.excluded if index == 1 else 0)
        text = manifest_text(account.findings(), root=args.cohort, share=f"{index}/{count}")
        _private(room / f"manifest-{tag}.json").write_text(text, encoding="utf-8")
        record.parameters = {"share": args.share, "negatives": args.negatives, "excluded_patients": cohort.excluded}
        record.parameters |= {"context": args.context, **options.recorded(args)}
        record.versions |= {name: version(name) for name in _LIBRARIES}
    annotations.tell(_say, cohort, all_series=index == 1)
    _summarise(share, cohort)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shown:
    """What training is shown of a series: a share of the slices without nodule, neighbours on either side of each."""

    negatives: float
    context: int

    def __post_init__(self) -> None:
        if not 0 <= self.negatives <= 1:
            raise OptionError(f"--negatives {self.negatives}: need a share from 0 to 1.")
        if self.context < 0:
            raise OptionError(f"--context {self.context}: need a number of slices, 0 or more.")

    def chosen(self, series: SeriesId, nodule: NDArray[np.bool_] | None) -> NDArray[np.intp]:
        """Return the slices to train on: all with nodule and, by a hash, about a share of the others."""
        if nodule is None:
            return np.zeros(0, np.intp)
        drawn = np.asarray(nodule.any(axis=(1, 2)), dtype=np.bool_)
        lots = [hashlib.sha256(f"{series}/{index}".encode()).digest() for index in range(len(nodule))]
        lucky = np.array([int.from_bytes(lot[:8], "big") < self.negatives * 2.0**64 for lot in lots])
        return np.flatnonzero(drawn | lucky)

    def packed(self, chosen: NDArray[np.intp], series: Series) -> NDArray[np.intp]:
        """Return which slices go with the chosen ones, themselves included."""
        return with_neighbours(chosen, len(series.slices), self.context)


@dataclass
class _Share:
    """What has been written of a share so far; `at_once` of a series' slices are decoded side by side."""

    room: Path
    key: bytes
    shown: _Shown
    record: RunRecord
    account: Account
    annotations: Annotations
    at_once: int
    entries: list[dict[str, Any]] = field(default_factory=list)
    backgrounds: list[dict[str, Any]] = field(default_factory=list)
    stacks: list[SliceStack] = field(default_factory=list)

    def write_patients(self, patients: list[Patient], identities: IdentityWriter) -> None:
        total, told = sum(len(patient.batches) for patient in patients), time.monotonic()
        for number, (patient, series) in enumerate(_all_series(patients, self.account, self.at_once), start=1):
            series_id = _series_id(self.key, patient, series)
            sources = ["/".join(source.path.parts[-4:]) for source in series.slices]  # the way back from a pseudonym
            try:
                files = part10_files(series.headers, sources, series.encoded)
                annotated = self._write_series(series_id, series)
            except StudyError as error:  # a header that cannot be kept, pixels that cannot be decoded
                self.account.unusable(series, error)
                continue
            identities.add(series_id, files, sources)
            self.account.used(series, str(series_id), annotated=annotated)
            if time.monotonic() - told > _PROGRESS_EVERY_S:
                told = time.monotonic()
                _say(f"{number} of about {total} series")
            self.record.items += len(series.slices)
        self.record.unit = "slices"
        self.record.bytes_in = sum(patient.bytes for patient in patients)

    def write_backgrounds(self, patients: list[Patient]) -> None:
        for patient, series in _all_series(patients, self.account, self.at_once):
            series_id, drawing = _series_id(self.key, patient, series), self.annotations.of(series)
            nodule = np.zeros(series.geometry.shape, np.bool_) if drawing is None else drawing.labels > 0
            chosen = _spread(series)
            try:
                series.hu.whole()
            except StudyError as error:
                self.account.unusable(series, error)
                continue
            self._pack(series_id, series, nodule, chosen)
            entry = {"patient": series_id.patient, "series": series_id.series, "training_slices": len(chosen)}
            self.backgrounds.append(entry)
            self.record.items += len(series.slices)
        if patients and not self.backgrounds:
            raise StudyError("--backgrounds: no series in it can be used. Look at it with --cohort, or leave it out.")
        self.record.bytes_in += sum(patient.bytes for patient in patients)

    def write_lists(self, tag: str, share: str, excluded: int) -> None:
        slices = self.room / f"training-{tag}.slices"
        self.record.add_output(slices, write_slices(slices, self.stacks))
        entries = sorted(self.entries, key=lambda entry: str(entry["volume"]))
        document = {"share": share, "excluded_patients": excluded, "series": entries}
        if self.backgrounds:
            document["backgrounds"] = sorted(
                self.backgrounds, key=lambda entry: f"{entry['patient']}-{entry['series']}"
            )
        text = json.dumps(document, indent=1) + "\n"
        index = self.room / f"series-{tag}.json"
        write_text(index, text)
        self.record.add_output(index, hashlib.sha256(text.encode()).hexdigest())

    def _write_series(self, series_id: SeriesId, series: Series) -> bool:
        """Write what a series becomes; tell whether it is annotated."""
        drawing = self.annotations.of(series)
        nodule = None if drawing is None else drawing.labels > 0
        chosen = self.shown.chosen(series_id, nodule)
        series.hu.keep(self.shown.packed(chosen, series).tolist())
        path = self.room / f"{series_id}.volume"
        volume_hash = write_voxels(path, series_id, series.geometry, series.hu)
        self.record.add_output(path, volume_hash)
        entry = {
            "patient": series_id.patient,
            "series": series_id.series,
            "volume": path.name,
            "reference": None,
            "slices": len(series.slices),
            "annotated_slices": 0 if nodule is None else int(nodule.any(axis=(1, 2)).sum()),
            "training_slices": len(chosen),
            "bytes": path.stat().st_size,
        }
        if drawing is not None:
            reference = self.room / f"{series_id}.reference"
            mask = reference_of(drawing, series_id, volume_hash, place_of(series))
            self.record.add_output(reference, write_mask(reference, mask))
            entry["reference"] = reference.name
        if nodule is not None and len(chosen):
            self._pack(series_id, series, nodule, chosen)
        self.entries.append(entry)
        return nodule is not None

    def _pack(self, series_id: SeriesId, series: Series, nodule: NDArray[np.bool_], chosen: NDArray[np.intp]) -> None:
        drawn, spacing_mm = nodule.view(np.uint8), series.geometry.spacing_mm
        whole = SliceStack.of_series(series_id, hu=series.hu.kept, nodule=drawn, spacing_mm=spacing_mm)
        self.stacks.append(choose_slices(whole, chosen, context=self.shown.context))


def _all_series(patients: list[Patient], account: Account, at_once: int = 1) -> Iterator[tuple[Patient, Series]]:
    """Yield what can be used; what cannot is put on the account."""
    for patient in patients:
        seen: dict[str, str] = {}
        for batch in patient.batches:
            for found in read_series(batch, at_once=at_once):
                if isinstance(found, Finding):
                    account.set_aside(found)
                    continue
                if seen.setdefault(found.uid, batch.name) != batch.name:
                    raise StudyError(
                        f"{found.slices[0].path}: its series stands in {seen[found.uid]} and in {batch.name}; "
                        "need a series in one exam only. Correct the table."
                    )
                yield patient, found


def _check_usable(account: Account, cohort: Cohort, folder: Path, patients: list[Patient]) -> None:
    """Raise StudyError where no series of the whole cohort can be used: the same in every share."""
    if account.volumes or not patients:
        return
    rest = [patient for patient in cohort.patients if patient not in patients]
    others = Account(strict=False)
    if next(_all_series(rest, others), None) is None:
        raise account.refusal(others, folder)


def _tell(cohort: Cohort, account: Account) -> None:
    """Say what was found; only where there are results, so that an error stays one line."""
    for note in (*cohort.notes, *account.notes()):
        _say(note)


def _series_id(key: bytes, patient: Patient, series: Series) -> SeriesId:
    return SeriesId(
        patient=pseudonym(key, "patient", patient.identity),
        series=pseudonym(key, "series", series.name),
    )


def _spread(series: Series) -> NDArray[np.intp]:
    """Return slices about `_BACKGROUND_MM` apart, or all where they are further: neighbours show the same."""
    slices, step = len(series.slices), max(1, round(_BACKGROUND_MM / series.geometry.spacing_mm[0]))
    return np.arange(step // 2, slices, step) if slices > step // 2 else np.arange(slices)


def _backgrounds(folder: Path, excluded: list[str], cohort: Cohort) -> Cohort:
    """Look through a folder of backgrounds. Raises StudyError where one of its patients is of the cohort too."""
    found = find_cohort(folder, excluded)
    both = len({patient.identity for patient in found.patients} & {patient.identity for patient in cohort.patients})
    if both:
        raise StudyError(
            f"{folder}: {both} of its patients are in the cohort too; need others, for backgrounds are always trained "
            "on. Take them out of one of the two."
        )
    return found


def _print_plan(
    listed: Iterable[tuple[Patient, Series]],
    key: bytes,
    shown: _Shown,
    backgrounds: list[Patient],
    *,
    account: Account,
    annotations: Annotations,
) -> None:
    """Print what would leave the laptop. Sizes are before compression: an upper bound."""
    print(f"{'patient-series (pseudonyms)':<34} {'to inference: volume':>26} {'to training: slices':>26}")
    totals = np.zeros(4)
    for patient, series in listed:
        series_id = _series_id(key, patient, series)
        slices, rows, columns = series.geometry.shape
        drawing = annotations.of(series)
        account.used(series, str(series_id), annotated=drawing is not None)
        training = len(shown.packed(shown.chosen(series_id, None if drawing is None else drawing.labels > 0), series))
        megabytes = slices * rows * columns * 2e-6, training * rows * columns * 3e-6
        totals += (slices, megabytes[0], training, megabytes[1])
        print(
            f"{series_id!s:<34} {slices:>7} slices {megabytes[0]:>8.1f} MB {training:>7} slices {megabytes[1]:>8.1f} MB"
        )
    for patient, series in _all_series(backgrounds, account):
        _, rows, columns = series.geometry.shape
        training = len(shown.packed(_spread(series), series))
        totals += (0, 0, training, training * rows * columns * 3e-6)
        print(
            f"{_series_id(key, patient, series)!s:<34} {'background':>26} {training:>7} slices "
            f"{training * rows * columns * 3e-6:>8.1f} MB"
        )
    print(f"{'sum':<34} {totals[0]:>7.0f} slices {totals[1]:>8.1f} MB {totals[2]:>7.0f} slices {totals[3]:>8.1f} MB")
    print(
        "volume: HU, voxel spacing and axes, pseudonyms. slices: HU and mask, spacing, slice numbers, pseudonyms. "
        "At most these sizes."
    )
    print(
        "stays here: names, dates, UIDs, positions in the scanner, file names, DICOM headers (.identity), references."
    )
    print("dry run: nothing was written.")


def _summarise(share: _Share, cohort: Cohort) -> None:
    entries = share.entries
    bare = sorted({e["patient"] for e in entries} - {e["patient"] for e in entries if e["annotated_slices"]})
    if bare:
        more = ", …" if len(bare) > 5 else ""
        _say(f"patients without an annotated slice, kept for inference only: {len(bare)} ({', '.join(bare[:5])}{more})")
    training, annotated = (sum(e[name] for e in entries) for name in ("training_slices", "annotated_slices"))
    print(
        f"{len({e['patient'] for e in entries})} patients, {len(entries)} series, "
        f"{sum(e['slices'] for e in entries)} slices, {annotated} with a mask, {training} to train on; "
        f"{cohort.excluded} patients excluded"
    )


def _share(text: str) -> tuple[int, int]:
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
        raise OptionError(f"--share {text}: need i/n with 1 <= i <= n, such as 1/2.")
    return int(first), int(second)


def _excluded(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"--exclude {path}: cannot be read ({error}); need a text file, one PatientID a line."
        ) from error
    return [line.strip() for line in lines if line.strip()]


def _private(path: Path) -> Path:
    """Make an empty file that only its owner can read, before anything is in it."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return path


def _say(text: str) -> None:
    print(f"preprocess: {text}", file=sys.stderr)
