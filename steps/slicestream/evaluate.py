"""Compare masks with references, every metric by name: metrics.json and a short table."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from slicestream.errors import ArtefactError, SplitError
from slicestream.volumes.files import write_text
from slicestream.volumes.mask import read_mask
from slicestream.volumes.metrics import Case, compare
from slicestream.volumes.record import recorded
from slicestream.volumes.scores import SIZES_MM, summarise
from slicestream.volumes.staging import staged
from slicestream.volumes.volume import by_series

ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = "example: slicestream evaluate --masks masks/*.mask --references prepared/*.reference --out scores"
    parser.add_argument("--masks", type=Path, nargs="*", default=[], help=".mask files that `slicestream infer` wrote")
    parser.add_argument(
        "--references",
        type=Path,
        nargs="*",
        default=[],
        help=".reference files that `slicestream preprocess` wrote; a mask without one is listed as not scored",
    )
    parser.add_argument(
        "--split-name", default=ALL, help="which patients the masks are of: training, validation, test or all (default)"
    )
    parser.add_argument(
        "--split",
        type=Path,
        help="split.json: a mask of a patient of another side is an error, references of other sides are left out",
    )
    parser.add_argument("--out", type=Path, default=Path(), help="folder for metrics.json (default: here)")


def run(args: argparse.Namespace) -> None:
    """Write metrics.json and the run record; print the headline figures."""
    masks, references = by_series(args.masks, "mask"), by_series(args.references, "reference")
    if args.split is not None and args.split_name != ALL:
        sides = _sides(args.split)
        _check_sides(masks, sides, args.split_name)
        references = {s: p for s, p in references.items() if sides.get(s.split("-")[0]) == args.split_name}
    lost = sorted(set(references) - set(masks))
    if lost:
        raise ArtefactError(
            f"{references[lost[0]]}: no mask of series {lost[0]} among --masks ({len(lost)} such references); "
            f"need one for each. Run `slicestream infer` on it, or give --split and --split-name."
        )
    with staged(args.out) as room, recorded("evaluate", room) as record:
        cases = []
        for number, series in enumerate(sorted(references), start=1):
            case, hashes = _case(masks[series], references[series])
            cases.append(case)
            for path, content_hash in zip((masks[series], references[series]), hashes, strict=True):
                record.add_input(f"{series}{path.suffix}", content_hash, path.stat().st_size)
            if number % 100 == 0:
                print(f"evaluate: {number}/{len(references)} series", file=sys.stderr)
        summary = summarise(cases, split=args.split_name, not_scored=sorted(set(masks) - set(references)))
        text = json.dumps(summary, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_text(room / "metrics.json", text)
        record.items, record.unit = len(cases), "series"
        record.parameters = {"split": args.split_name}
        record.versions["numpy"] = np.__version__
        record.add_output(room / "metrics.json", hashlib.sha256(text.encode()).hexdigest())
    print(_table(summary))


def _sides(path: Path) -> dict[str, str]:
    try:
        patients = json.loads(path.read_text(encoding="utf-8"))["patients"]
        return {str(patient): str(side) for patient, side in patients.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(
            f"{path}: not a usable split ({error}); need the split.json that `slicestream split` wrote. Make it again."
        ) from error


def _check_sides(masks: dict[str, Path], sides: dict[str, str], wanted: str) -> None:
    for series, path in masks.items():
        side = sides.get(series.split("-")[0])
        if side != wanted:
            found = f"is on the {side} side" if side else "is on no side"
            raise SplitError(
                f"{path}: its patient {found} of the split; need patients of '{wanted}' only. "
                "Leave the mask out, or name the side it is of."
            )


def _case(mask_path: Path, reference_path: Path) -> tuple[Case, tuple[str, str]]:
    mask, reference = read_mask(mask_path, "mask"), read_mask(reference_path, "reference")
    if mask.volume_hash != reference.volume_hash or mask.geometry != reference.geometry:
        raise ArtefactError(
            f"{mask_path}: made from volume {mask.volume_hash[:12]}…, but {reference_path} is of volume "
            f"{reference.volume_hash[:12]}…; need both of one preprocessing. Run infer again on the volumes that the "
            "references came with."
        )
    return compare(mask, reference), (mask.content_hash, reference.content_hash)


def _table(summary: dict[str, Any]) -> str:
    lines = [
        f"split: {summary['split']}: {summary['patients']} patients, {summary['cases']} series, {summary['slices']} "
        f"slices ({summary['slices_annotated']} annotated), {summary['nodules']['count']} nodules",
        f"{'':24}{'IoU':<26}Dice",
    ]
    for name in summary["iou"]:
        lines.append(f"{name:24}{_text(summary['iou'][name]):<26}{_text(summary['dice'][name])}")
    nodules = summary["nodules"]
    sizes = (
        f"{size.replace('_', ' ')} mm {_short(nodules['sensitivity'][size])} of {nodules['counts'][size]}"
        for size in SIZES_MM
    )
    intervals = nodules["intervals"]
    lines.append(f"{'sensitivity':24}{_text(intervals['sensitivity']['all'])}; {', '.join(sizes)}")
    lines.append(f"{'false positives / scan':24}{_text(intervals['false_positives_per_scan'])}")
    points = summary["operating_points"]
    at = ", ".join(f"{rate}: {_short(figure['value'])}" for rate, figure in points.items() if rate != "mean")
    lines.append(f"{'sensitivity at FP/scan':24}{at}; mean {_text(points['mean'])}")
    for sensitivity, figure in summary["false_positives_per_scan_at"].items():
        lines.append(f"{f'FP / scan at {sensitivity}':24}{_text(figure)}")
    volume = summary["volume_error"]
    if volume["high"] is not None:
        limits = f"{volume['bias']:.0f} ({volume['low']:.0f} to {volume['high']:.0f}) of {volume['count']} nodules hit"
        lines.append(f"{'volume error, %':24}{limits}")
    if nodules["forms"]["sphere"]:
        lines.append(
            f"spheres of a centre and a diameter: {nodules['forms']['sphere']} of {nodules['count']} reference nodules"
            "; IoU, Dice and volume error are not against outlines"
        )
    if summary["not_scored"]:
        lines.append(f"not scored, for want of a reference: {len(summary['not_scored'])} series")
    return "\n".join(lines)


def _text(figure: dict[str, float | None]) -> str:
    if figure["value"] is None or (figure["low"] is None and figure["high"] is None):
        return _short(figure["value"])
    return f"{_short(figure['value'])} ({_short(figure['low'])} to {_short(figure['high'])})"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
