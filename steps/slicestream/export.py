"""Masks to DICOM SEG, DICOM SR, overlays and a nodule table. Joins masks with identities: runs on the laptop only."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from pydicom import Dataset

from slicestream import RESEARCH_ONLY
from slicestream.dicom.identity import read_identities
from slicestream.dicom.measurement_report import SeriesResult, series_result, write_report
from slicestream.dicom.nifti import write_nifti
from slicestream.dicom.secondary_capture import write_captures
from slicestream.dicom.segmentation import Kind, write_segmentation
from slicestream.errors import ArtefactError, OptionError
from slicestream.figures.nodules import NoduleRow, nodule_rows, nodules_csv
from slicestream.figures.overlays import draw_overlays, write_overlays
from slicestream.volumes.files import write_text
from slicestream.volumes.mask import Mask, check_same_volume, read_mask
from slicestream.volumes.measures import Measures, measure
from slicestream.volumes.record import RunRecord, recorded
from slicestream.volumes.staging import staged
from slicestream.volumes.volume import Volume, Window, by_series, read_volume

OVERLAYS_PER_SERIES = 12
KINDS = {"binary": (Kind.BINARY,), "labelmap": (Kind.LABELMAP,), "both": (Kind.BINARY, Kind.LABELMAP)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `slicestream export`."""
    parser.epilog = (
        "example: slicestream export --masks masks/*.mask --volumes prepared/*.volume "
        "--identities prepared/*.identity --out results"
    )
    parser.add_argument("--masks", type=Path, nargs="*", required=True, metavar="MASK", help="masks from infer")
    parser.add_argument(
        "--volumes", type=Path, nargs="*", required=True, metavar="VOLUME", help="volumes the masks were made from"
    )
    parser.add_argument(
        "--identities", type=Path, nargs="+", required=True, metavar="MAP", help="identity maps from preprocess"
    )
    parser.add_argument(
        "--references", type=Path, nargs="*", default=[], metavar="REFERENCE", help="annotations, to compare with"
    )
    parser.add_argument(
        "--overlays",
        type=int,
        default=OVERLAYS_PER_SERIES,
        metavar="N",
        help="overlay images per series at most, spread evenly over its marked slices (default: %(default)s)",
    )
    parser.add_argument(
        "--segmentation",
        choices=tuple(KINDS),
        default="binary",
        help="form of the DICOM SEG: binary is read by all, labelmap is smaller and new (default: %(default)s)",
    )
    parser.add_argument("--captures", action="store_true", help="also write the overlays as DICOM Secondary Capture")
    parser.add_argument("--nifti", action="store_true", help="also write CT and mask of each series as NIfTI")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="output folder (default: here)")


def run(args: argparse.Namespace) -> None:
    """Write segmentations/, measurements/, overlays/, nodules.csv, on demand captures/ and nifti/, the run record."""
    if args.overlays < 0:
        raise OptionError(f"--overlays {args.overlays}: need a number of images, 0 or more. Give 12, say.")
    masks = by_series(args.masks, "mask")
    volumes, references = by_series(args.volumes, "volume"), by_series(args.references, "reference")
    identities = read_identities(args.identities)
    _check_complete(masks, volumes, identities)
    with staged(args.out) as room, recorded("export", room) as record:
        export = _Export(out=room, record=record, args=args)
        for number, (series, path) in enumerate(sorted(masks.items()), start=1):
            export.series(path, volumes[series], references.get(series), identities[series])
            if number % 20 == 0 or number == len(masks):
                print(f"export: {number} of {len(masks)} series", file=sys.stderr)
        export.finish(len(masks))
    print(export.summary(len(masks)))


def _check_complete(masks: Mapping[str, Path], volumes: Mapping[str, Path], identities: Mapping[str, object]) -> None:
    """Look for what is missing before anything is written."""
    for series, path in masks.items():
        if series not in volumes:
            raise ArtefactError(f"{path}: no volume of series {series} was given. Add it to --volumes.")
        if series not in identities:
            raise ArtefactError(
                f"{path}: series {series} is in no identity map given; need the one that preprocess wrote beside its "
                "volume. Add it to --identities."
            )


@dataclass(kw_only=True)
class _Export:
    """The running totals of one export."""

    out: Path
    record: RunRecord
    args: argparse.Namespace
    rows: list[NoduleRow] = field(default_factory=list)
    images: int = 0
    segmentations: int = 0
    reports: int = 0
    captures: int = 0
    pending: list[SeriesResult] = field(default_factory=list)
    without_candidates: list[str] = field(default_factory=list)

    def series(self, mask_path: Path, volume_path: Path, reference_path: Path | None, headers: list[Dataset]) -> None:
        """Write everything of one series."""
        volume, mask = read_volume(volume_path), read_mask(mask_path, "mask")
        reference = read_mask(reference_path, "reference") if reference_path else None
        check_same_volume(mask_path, mask, volume)
        if reference_path and reference:
            check_same_volume(reference_path, reference, volume)
        self._note_inputs(mask_path, mask, volume_path, volume)
        origin_lps_mm = [float(mm) for mm in headers[0].ImagePositionPatient]
        found = measure(volume, mask.labels, origin_lps_mm)
        self.rows += nodule_rows(volume, mask, reference, origin_lps_mm, found=found)
        self._dicom(mask, headers, found)
        drawing = {"at_most": self.args.overlays, "window": Window()}
        self.images += len(write_overlays(self.out / "overlays", volume, mask, reference, **drawing))
        if self.args.captures:
            pictures = draw_overlays(volume, mask, reference, **drawing)
            for path, content in write_captures(self.out / "captures", mask, headers, pictures, window=Window()):
                self.record.add_output(path, content)
                self.captures += 1
        if self.args.nifti:
            write_nifti(self.out / "nifti" / f"{mask.id}-ct.nii.gz", volume.hu, volume.geometry, origin_lps_mm)
            write_nifti(self.out / "nifti" / f"{mask.id}-mask.nii.gz", mask.labels, mask.geometry, origin_lps_mm)

    def _dicom(self, mask: Mask, headers: list[Dataset], found: Mapping[int, Measures]) -> None:
        """Write the series' SEG; keep what its study's report needs, and write those of the patient before."""
        kinds = KINDS[self.args.segmentation]
        if mask.candidates or mask.labels.any():
            for kind in kinds:
                ending = "" if kind is Kind.BINARY else f"-{kind}"
                path = self.out / "segmentations" / f"{mask.id}{ending}.dcm"
                self.record.add_output(path, write_segmentation(path, mask, headers, kind=kind))
                self.segmentations += 1
        else:
            self.without_candidates.append(str(mask.id))
        if self.pending and not self.pending[0].mask.startswith(mask.id.patient):
            self._report()
        self.pending.append(series_result(mask, headers, found, kinds[0]))

    def _report(self) -> None:
        """Write a report for each study of the patient whose series were gone through."""
        for study in dict.fromkeys(one.study for one in self.pending):
            series = [one for one in self.pending if one.study == study]
            path = self.out / "measurements" / f"{series[0].mask}-sr.dcm"
            self.record.add_output(path, write_report(path, series))
            self.reports += 1
        self.pending.clear()

    def finish(self, series: int) -> None:
        """Write the table, and the folders even where they stay empty (a workflow collects them)."""
        self._report()
        asked = [name for name in ("captures", "nifti") if getattr(self.args, name)]
        for name in ("segmentations", "measurements", "overlays", *asked):
            (self.out / name).mkdir(parents=True, exist_ok=True)
        table, text = self.out / "nodules.csv", nodules_csv(self.rows)
        write_text(table, text)
        record = self.record
        record.add_output(table, hashlib.sha256(text.encode()).hexdigest())
        record.items, record.unit = series, "series"
        record.parameters = {
            "overlays_per_series": self.args.overlays,
            "segmentation": self.args.segmentation,
            "captures": self.args.captures,
            "nifti": self.args.nifti,
            "series_without_candidates": self.without_candidates,
            "notice": RESEARCH_ONLY,
        }
        record.versions |= {name: version(name) for name in ("pydicom", "highdicom", "pillow", "SimpleITK")}

    def summary(self, series: int) -> str:
        """Return what is said on stdout."""
        count = sum(row.nodule is not None for row in self.rows)
        counts = (
            f"{self.segmentations} DICOM SEG, {self.reports} DICOM SR, {self.images} overlays, "
            f"{count} candidates in nodules.csv"
        )
        lines = [f"{series} series: {counts}"]
        if self.without_candidates:
            lines.append(
                f"no candidates, so no DICOM SEG: {len(self.without_candidates)} series "
                f"({', '.join(self.without_candidates[:5])}{', …' if len(self.without_candidates) > 5 else ''})"
            )
        return "\n".join([*lines, RESEARCH_ONLY])

    def _note_inputs(self, mask_path: Path, mask: Mask, volume_path: Path, volume: Volume) -> None:
        # by content, not by file name: what the files are called is the caller's business
        self.record.add_input(f"{mask.id}.mask", mask.content_hash, mask_path.stat().st_size)
        self.record.add_input(f"{volume.id}.volume", volume.content_hash, volume_path.stat().st_size)
