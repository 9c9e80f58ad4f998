"""Step `split`: divide the cohort by patient and pack the training shards. Volumes do not pass through it."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from slicestream.errors import ArtefactError, SplitError
from slicestream.volumes.artefact import read_header
from slicestream.volumes.files import write_text
from slicestream.volumes.patients import SIDES, Fractions, divide
from slicestream.volumes.record import RunRecord, recorded
from slicestream.volumes.slices import SliceStack, read_slices, write_slices
from slicestream.volumes.staging import staged
from slicestream.volumes.volume import SeriesId

SHARD_BYTES = 1 << 30  # of HU and masks before compression
PACKED = ("training", "validation")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = "example: slicestream split --slices prepared/*.slices --indexes prepared/series-*.json --out sides"
    parser.add_argument("--slices", type=Path, nargs="+", required=True, help="training slices of every share")
    parser.add_argument("--indexes", type=Path, nargs="+", required=True, help="series index of every share")
    parser.add_argument(
        "--fractions",
        type=float,
        nargs=3,
        default=(0.8, 0.1, 0.1),
        metavar=("TRAINING", "VALIDATION", "TEST"),
        help="shares of the images, sum 1 (default: 0.8 0.1 0.1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="whole number; same seed, same split (default: 0)")
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write into (default: here)")


def run(args: argparse.Namespace) -> None:
    """Write the shards, split.json and cwl.output.json; print the table."""
    training, validation, test = args.fractions
    fractions = Fractions(training=training, validation=validation, test=test)
    indexes = [_read_index(path) for path in args.indexes]
    entries = [entry for index in indexes for entry in index.series]
    backgrounds = [entry for index in indexes for entry in index.backgrounds]
    sides = _divided(entries, fractions, args.seed)
    excluded = sum(index.excluded for index in indexes)
    unused = len({entry.id.patient for entry in entries} - set(sides))
    table = _table(entries, sides)
    with staged(args.out) as room, recorded("split", room) as record:
        for path, index in zip(args.indexes, indexes, strict=True):
            record.add_input(path.name, index.content_hash, path.stat().st_size)
            record.items += len(index.series)
        trained = sides | {entry.id.patient: "training" for entry in backgrounds}
        shards = _pack(room, args.slices, [*entries, *backgrounds], sides=trained, record=record)
        document = {
            "seed": args.seed,
            "fractions": asdict(fractions),
            "excluded_patients": excluded,
            "patients_without_annotation": unused,
            "table": table,
            "backgrounds": {"series": len(backgrounds), "images": sum(entry.images for entry in backgrounds)},
            "patients": sides,
        }
        write_text(room / "split.json", json.dumps(document, indent=1) + "\n")
        write_text(room / "cwl.output.json", json.dumps(_ports(shards, indexes, sides), indent=1) + "\n")
        record.unit, record.parameters = "series", {"seed": args.seed, "fractions": asdict(fractions)}
        record.versions |= {name: version(name) for name in ("blosc2", "numpy")}
    _print_table(table)
    print(f"{excluded} patients excluded; {unused} without an annotated slice, on no side")
    if backgrounds:
        print(
            f"backgrounds, to train on: {len(backgrounds)} series, {sum(entry.images for entry in backgrounds)} images"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """One series of an index; `images` are those to train or be measured on."""

    id: SeriesId
    images: int
    annotated: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Index:
    content_hash: str
    excluded: int
    series: tuple[_Entry, ...]
    backgrounds: tuple[_Entry, ...]


def _read_index(path: Path) -> _Index:
    try:
        text = path.read_bytes()
        document = json.loads(text)
        series, backgrounds = (
            tuple(
                _Entry(
                    id=SeriesId(patient=entry["patient"], series=entry["series"]),
                    images=int(entry["training_slices"]),
                    annotated=int(entry.get("annotated_slices", 0)),
                )
                for entry in document.get(name, [])
            )
            for name in ("series", "backgrounds")
        )
        content_hash = hashlib.sha256(text).hexdigest()
        return _Index(
            content_hash=content_hash,
            excluded=int(document["excluded_patients"]),
            series=series,
            backgrounds=backgrounds,
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{path}: not a readable series index ({error}); need series-<i>of<n>.json. "
            "Make it with `slicestream preprocess`."
        ) from error


def _divided(entries: Sequence[_Entry], fractions: Fractions, seed: int) -> dict[str, str]:
    """Return pseudonym → side of every patient with an annotated slice."""
    names = Counter(str(entry.id) for entry in entries)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ArtefactError(f"series {twice[0]} is in two indexes; need each share once. Give the shares of one run.")
    images, annotated = Counter[str](), Counter[str]()
    for entry in entries:
        images[entry.id.patient] += entry.images
        annotated[entry.id.patient] += entry.annotated
    usable = {patient: images[patient] for patient, count in annotated.items() if count}
    if not usable:
        raise SplitError(
            f"no annotated slice (patients: {len(images)}); need masks to train on. Give a cohort in the UniToChest "
            "layout, or use the workflow segment (`make segment`) with a trained model."
        )
    return divide(usable, fractions, seed)


def _table(entries: Sequence[_Entry], sides: Mapping[str, str]) -> list[dict[str, Any]]:
    rows = []
    for side in SIDES:
        mine = [entry for entry in entries if sides.get(entry.id.patient) == side]
        patients, images = len({entry.id.patient for entry in mine}), sum(entry.images for entry in mine)
        rows.append({"side": side, "patients": patients, "series": len(mine), "images": images})
    return rows


@dataclass(kw_only=True)
class _Shards:
    """Fills one side's shards, each written once it has reached its size."""

    room: Path
    side: str
    record: RunRecord
    paths: list[Path] = field(default_factory=list)
    stacks: list[SliceStack] = field(default_factory=list)
    size: int = 0

    def add(self, stack: SliceStack) -> None:
        self.stacks.append(stack)
        self.size += stack.hu.nbytes + stack.nodule.nbytes
        if self.size >= SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        if self.stacks:
            path = self.room / f"{self.side}-{len(self.paths):03d}.slices"
            self.record.add_output(path, write_slices(path, self.stacks))
            self.paths.append(path)
            self.stacks, self.size = [], 0


def _pack(
    room: Path, files: Sequence[Path], entries: Sequence[_Entry], *, sides: Mapping[str, str], record: RunRecord
) -> dict[str, list[Path]]:
    """Write the shards of training and validation; test is measured on volumes. Return their paths by side."""
    shards = {side: _Shards(room=room, side=side, record=record) for side in PACKED}
    waiting = {str(entry.id): entry for entry in entries if entry.images}
    for number, path in enumerate(sorted(files, key=lambda path: path.name), start=1):
        for stack in read_slices(path):
            entry = waiting.pop(str(stack.id), None)
            trained = int(stack.trained.sum())
            if entry is None or entry.images != trained:
                raise ArtefactError(
                    f"{path}: {trained} slices of series {stack.id} to train on, which the indexes do not list so; "
                    "need slices and indexes of one run. Give the matching files."
                )
            side = sides.get(stack.id.patient)
            if side in shards:
                shards[side].add(stack)
        record.add_input(path.name, read_header(path, "slices")[1], path.stat().st_size)
        print(f"split: packed {number} of {len(files)} files", file=sys.stderr)
    if waiting:
        raise ArtefactError(
            f"series {next(iter(waiting))} is in an index but in none of the slices files; "
            "need those of every share. Give them all."
        )
    for shard in shards.values():
        shard.flush()
    return {side: shard.paths for side, shard in shards.items()}


def _ports(shards: Mapping[str, list[Path]], indexes: Sequence[_Index], sides: Mapping[str, str]) -> dict[str, Any]:
    """Return the step's CWL outputs; `is_test` says per index, in its order, which series are the test side's."""
    return {
        **{side: [_file(path.name) for path in paths] for side, paths in shards.items()},
        "split": _file("split.json"),
        "is_test": [[sides.get(entry.id.patient) == "test" for entry in index.series] for index in indexes],
        "run_record": _file("split.run.json"),
    }


def _file(name: str) -> dict[str, str]:
    return {"class": "File", "path": name}


def _print_table(table: Sequence[Mapping[str, Any]]) -> None:
    total = sum(int(row["images"]) for row in table)
    print(f"{'':<12}{'patients':>10}{'series':>10}{'images':>10}{'%':>8}")
    for row in table:
        share = 100 * row["images"] / total
        print(f"{row['side']:<12}{row['patients']:>10}{row['series']:>10}{row['images']:>10}{share:>8.1f}")
    sums = [sum(int(row[name]) for row in table) for name in ("patients", "series", "images")]
    print(f"{'sum':<12}{sums[0]:>10}{sums[1]:>10}{sums[2]:>10}{100:>8.1f}")
