"""Volumes, masks and references to a folder that shows them in a browser. No identity; runs on the laptop."""

from __future__ import annotations

import argparse
import hashlib
import sys
from dataclasses import dataclass, field
from pathlib import Path

from slicestream import RESEARCH_ONLY
from slicestream.errors import ArtefactError, OptionError
from slicestream.figures.viewer.case import entry, script
from slicestream.figures.viewer.folder import write_assets, write_index
from slicestream.volumes.documents import Facts
from slicestream.volumes.files import write_text
from slicestream.volumes.mask import Mask, check_same_volume, read_mask
from slicestream.volumes.record import RunRecord, recorded
from slicestream.volumes.staging import staged
from slicestream.volumes.volume import Volume, by_series, read_volume

MOST_MB = 1000.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `slicestream view`."""
    parser.epilog = "example: slicestream view --masks masks/*.mask --volumes prepared/*.volume --out results"
    parser.add_argument("--masks", type=Path, nargs="*", required=True, metavar="MASK", help="masks from infer")
    parser.add_argument(
        "--volumes", type=Path, nargs="*", required=True, metavar="VOLUME", help="volumes the masks were made from"
    )
    parser.add_argument(
        "--references", type=Path, nargs="*", default=[], metavar="REFERENCE", help="annotations, to compare with"
    )
    parser.add_argument(
        "--most-mb",
        type=float,
        default=MOST_MB,
        metavar="MB",
        help="size that the series may add up to; the first over it and all after that are left out and named "
        "(default: %(default)g)",
    )
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="output folder (default: here)")


def run(args: argparse.Namespace) -> None:
    """Write viewer/ and the run record."""
    if not args.most_mb >= 0:
        raise OptionError(f"--most-mb {args.most_mb:g}: need a size in MB, 0 or more. Give {MOST_MB:g}, say.")
    masks = by_series(args.masks, "mask")
    volumes, references = by_series(args.volumes, "volume"), by_series(args.references, "reference")
    for series, path in masks.items():
        if series not in volumes:
            raise ArtefactError(f"{path}: no volume of series {series} was given. Add it to --volumes.")
    with staged(args.out) as room, recorded("view", room) as record:
        view = _View(folder=room / "viewer", record=record, left_bytes=args.most_mb * 1e6)
        write_assets(view.folder)
        for series, path in sorted(masks.items()):
            view.series(series, path, volumes[series], references.get(series))
        view.finish(args.most_mb)
    print(view.summary(args.most_mb))


@dataclass(kw_only=True)
class _View:
    """The running totals of one viewer's folder."""

    folder: Path
    record: RunRecord
    left_bytes: float
    shown: list[Facts] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def series(self, series: str, mask_path: Path, volume_path: Path, reference_path: Path | None) -> None:
        """Write one series, unless it or one before it is too much."""
        if self.left_out:
            self.left_out.append(series)
            return
        volume, mask, reference = _read(self.record, mask_path, volume_path, reference_path)
        text, path = script(volume, mask, reference), self.folder / f"{series}.js"
        self.left_bytes -= len(text)
        if self.left_bytes < 0:
            self.left_out.append(series)
            return
        write_text(path, text)
        self.record.add_output(path, hashlib.sha256(text.encode()).hexdigest())
        self.shown.append(entry(volume, mask, reference))
        if len(self.shown) % 20 == 0:
            print(f"view: {len(self.shown)} series", file=sys.stderr)

    def finish(self, most_mb: float) -> None:
        """Write the list of the series."""
        path = self.folder / "series.js"
        self.record.add_output(path, write_index(path, self.shown, self.left_out, most_mb))
        self.record.items, self.record.unit = len(self.shown), "series"
        self.record.parameters = {"most_mb": most_mb, "series_left_out": self.left_out, "notice": RESEARCH_ONLY}

    def summary(self, most_mb: float) -> str:
        """Return what is said on stdout."""
        count = sum(len(one["nodules"]) for one in self.shown)
        lines = [f"viewer/index.html: {len(self.shown)} series, {count} nodules in their lists"]
        if self.left_out:
            names = f"{', '.join(self.left_out[:5])}{', …' if len(self.left_out) > 5 else ''}"
            lines.append(f"left out, over {most_mb:g} MB: {len(self.left_out)} series ({names}); raise --most-mb")
        return "\n".join([*lines, RESEARCH_ONLY])


def _read(
    record: RunRecord, mask_path: Path, volume_path: Path, reference_path: Path | None
) -> tuple[Volume, Mask, Mask | None]:
    """Read what belongs to one series; note what was read."""
    volume, mask = read_volume(volume_path), read_mask(mask_path, "mask")
    check_same_volume(mask_path, mask, volume)
    record.add_input(f"{mask.id}.mask", mask.content_hash, mask_path.stat().st_size)
    record.add_input(f"{volume.id}.volume", volume.content_hash, volume_path.stat().st_size)
    if reference_path is None:
        return volume, mask, None
    reference = read_mask(reference_path, "reference")
    check_same_volume(reference_path, reference, volume)
    record.add_input(f"{reference.id}.reference", reference.content_hash, reference_path.stat().st_size)
    return volume, mask, reference
