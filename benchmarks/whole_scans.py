"""Recipe `laptop` on whole scans of a background that it has not seen, and without each of its parts.

For each background of `fullframe-open`: train on `lidc-mini` (without the patients whose nodules were pasted) and on
the *other* background, as plain scan; score on the left-out one and on the test side's crops. Finished runs stay under
`--out`: the same command goes on from there, and prints the table from all that is recorded.

    python benchmarks/whole_scans.py --data ../shared/data --out runs/whole-scans --variants plain default --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydicom import dcmread

import slicestream.learning.recipe as recipes
from slicestream.__main__ import main as slicestream
from slicestream.learning.recipe import Recipe, Reduction, ScanShares, find_recipe

PLAIN_SCANS = {"C3N-00249": "CPTAC-PDA_C3N-00249", "Lung_Dx-A0002": "Lung-PET-CT-Dx_A0002"}
SLICES, INDEX = "training-1of1.slices", "series-1of1.json"
SHARES = find_recipe("laptop").scans
# what each changes in the recipe
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"scans": ScanShares()},  # and no scan at all on the training side
    "default": {},
    "nothing-pasted": {"scans": replace(SHARES, pasted=0.0)},
    "no-revisits": {"scans": replace(SHARES, revisited=0.0)},
    "context": {"context": 1},
    "by-nodule": {"sampling": "nodules"},
    "tversky": {"loss": "tversky"},
    "unified-focal": {"loss": "unified_focal"},
    "temperature": {"temperature": True},
    "second-network": {"reduction": Reduction()},
}
CONTEXT = max(change.get("context", 0) for change in VARIANTS.values())
COLUMNS = (
    "FP/scan at 0.85",
    "mean at 1/8 to 8 FP",
    "FP/scan, as the model asks",
    "found, as the model asks",
    "of 3 to 6 mm found at any score",
    "calibration error",
    "crops: pooled IoU",
    "crops: found",
    "crops: of 3 to 6 mm found",
    "minutes to train",
)


def step(name: str, *arguments: Any) -> None:
    """Run a step as the command line does; stop where it does."""
    if status := slicestream([name, *(str(argument) for argument in arguments)]):
        raise SystemExit(status)


def backgrounds(data: Path, out: Path) -> dict[str, Path]:
    """Return a folder of links to each background's plain scan: its longest part without a tumour, a slice off it."""
    folders = {}
    for background, name in PLAIN_SCANS.items():
        folders[background] = folder = out / "backgrounds" / background
        if folder.exists():
            continue
        headers = {path: dcmread(path, stop_before_pixels=True) for path in (data / "ct" / name).rglob("*.dcm")}
        ordered = sorted(headers, key=lambda path: float(headers[path].ImagePositionPatient[2]))
        boxes = data / "ct" / name / "tumour_boxes.csv"
        drawn = {row["SOPInstanceUID"] for row in csv.DictReader(boxes.open())} if boxes.exists() else set()
        marked = [headers[path].SOPInstanceUID in drawn for path in ordered]
        clear = [not any(marked[max(0, index - 1) : index + 2]) for index in range(len(ordered))]
        parts = [list(part) for kept, part in groupby(range(len(ordered)), key=clear.__getitem__) if kept]
        folder.mkdir(parents=True)
        for index in max(parts, key=len):
            (folder / ordered[index].name).symlink_to(ordered[index].resolve())
    return folders


def prepare(data: Path, out: Path) -> None:
    """Preprocess everything once: the scans to score, and the crops beside no background and beside each."""
    key, left_out = out / "key", out / "left_out"
    key.write_text("a key for comparisons only\n")
    rows = list(csv.DictReader((data / "fullframe-open" / "nodules.csv").open()))
    left_out.write_text("\n".join(sorted({row["lidc_patient"] for row in rows})) + "\n")
    for background in PLAIN_SCANS:
        # of the table's patients, those whose nodules were pasted into another background are left out
        others = sorted({row["patientID"] for row in rows if row["background"] != background})
        (out / f"not_{background}").write_text("\n".join(others) + "\n")
        exclude = ("--exclude", out / f"not_{background}")
        once(out / "scans" / background, "preprocess", "--cohort", data / "fullframe-open", *exclude, key=key)
    for shown, folder in {"none": None, **backgrounds(data, out)}.items():
        beside = () if folder is None else ("--backgrounds", folder)
        crops = out / "crops" / shown
        training = ("--exclude", left_out, "--context", CONTEXT, *beside)
        once(crops, "preprocess", "--cohort", data / "lidc-mini", *training, key=key)
        once(out / "sides" / shown, "split", "--slices", crops / SLICES, "--indexes", crops / INDEX)


def once(folder: Path, name: str, *arguments: Any, key: Path | None = None) -> None:
    """Run a step into `folder` unless that is there."""
    if not folder.exists():
        step(name, *arguments, *(() if key is None else ("--pseudonym-key", key)), "--out", folder)


def measure(out: Path, variant: str, seed: int, epochs: int) -> None:
    """Train a variant once per background, score its crops and the background that it was not shown."""
    recipe: Recipe = replace(find_recipe("laptop"), name=variant, epochs=epochs, **VARIANTS[variant])
    recipes.RECIPES = MappingProxyType({**recipes.RECIPES, variant: recipe})  # --recipe finds it by its name
    for left_out in PLAIN_SCANS:
        shown = "none" if variant == "plain" else next(name for name in PLAIN_SCANS if name != left_out)
        run = out / "runs" / f"{variant}-{seed}" / f"left-out-{left_out}"
        sides = out / "sides" / shown
        files = {side: sorted(sides.glob(f"{side}-*.slices")) for side in ("training", "validation")}
        options = ("--recipe", variant, "--seed", seed, "--validation", *files["validation"])
        once(run / "model", "train", "--training", *files["training"], *options)
        model = ("infer", "--model", run / "model" / "model.onnx", "--flips")
        scans = out / "scans" / left_out
        once(run / "scans", *model, "--min-score", 0, "--volumes", *sorted(scans.glob("*.volume")))
        both = ("--masks", *sorted((run / "scans").glob("*.mask")), "--references", *sorted(scans.glob("*.reference")))
        once(run / "scans-scores", "evaluate", *both)
        once(run / "crops", *model, "--volumes", *tested(sides, out / "crops" / shown))
        references = sorted((out / "crops" / shown).glob("*.reference"))
        division = ("--split", sides / "split.json", "--split-name", "test")
        crops = sorted((run / "crops").glob("*.mask"))
        once(run / "crops-scores", "evaluate", "--masks", *crops, "--references", *references, *division)


def tested(sides: Path, crops: Path) -> list[Path]:
    """Return the volumes of the test side."""
    patients = json.loads((sides / "split.json").read_text())["patients"]
    return [path for path in sorted(crops.glob("*.volume")) if patients.get(path.name.split("-")[0]) == "test"]


def table(out: Path) -> None:
    """Print what is recorded: mean over seeds, and their range."""
    print(f"| variant | left out | seeds | {' | '.join(COLUMNS)} |")
    print(f"| {'--- | ' * (3 + len(COLUMNS))}".rstrip())
    for variant in VARIANTS:
        for left_out in PLAIN_SCANS:
            folders = sorted((out / "runs").glob(f"{variant}-*/left-out-{left_out}"))
            rows = [row(folder) for folder in folders if (folder / "crops-scores" / "metrics.json").exists()]
            if rows:
                cells = [summary([line[column] for line in rows]) for column in range(len(COLUMNS))]
                print(f"| {variant} | {left_out} | {len(rows)} | {' | '.join(cells)} |")


def row(folder: Path) -> list[float | None]:
    """Return the figures of one training, in the order of `COLUMNS`."""
    scans, crops, card, record = (
        json.loads((folder / name).read_text())
        for name in (
            "scans-scores/metrics.json",
            "crops-scores/metrics.json",
            "model/model.json",
            "model/train.run.json",
        )
    )
    points = [point for point in scans["froc"] if point["threshold"] >= card["min_score"]]
    return [
        scans["false_positives_per_scan_at"]["0.85"]["value"],
        scans["operating_points"]["mean"]["value"],
        points[-1]["false_positives_per_scan"] if points else 0.0,
        points[-1]["sensitivity"] if points else 0.0,
        scans["nodules"]["sensitivity"]["3-6"],
        scans["calibration"]["error"]["value"],
        crops["iou"]["pooled"]["value"],
        crops["nodules"]["sensitivity"]["all"],
        crops["nodules"]["sensitivity"]["3-6"],
        record["seconds"] / 60,
    ]


def summary(values: Sequence[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return f"none in {len(values) - len(numbers)} of {len(values)}"
    mean = f"{statistics.mean(numbers):.3g}"
    return mean if len(numbers) == 1 else f"{mean} ({min(numbers):.3g} to {max(numbers):.3g})"


def main() -> None:
    """Measure what was asked for, then print the table of all that is recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of lidc-mini, fullframe-open and ct")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=[], help="none: only print the table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=12)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.variants:
        prepare(args.data, args.out)
    for seed in args.seeds:
        for variant in args.variants:
            measure(args.out, variant, seed, args.epochs)
    table(args.out)


if __name__ == "__main__":
    main()
