"""Recipe `laptop` on whole scans of a background that it has not seen, and without each of its parts.

For each background of `fullframe-open` that is left out: train on `lidc-mini` (without the patients whose nodules were
pasted) and on the *other* background, as plain scan; score on the left-out one and on the test side's crops, which are
the same for all. Finished runs stay under `--out`: the same command goes on from there, and prints the table from all
that is recorded.

    python benchmarks/whole_scans.py --data ../shared/data --out runs/whole-scans --variants plain default --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """What differs from the default.

    Attributes
    ----------
    recipe : fields of the recipe
    shown : whether a plain scan is on the training side
    like : the variant whose trainings are taken, where only inference differs
    options : of `infer`
    """

    recipe: Mapping[str, Any] = field(default_factory=dict)
    shown: bool = True
    like: str | None = None
    options: Sequence[str] = ("--flips",)


VARIANTS = {
    "plain": Variant(recipe={"scans": ScanShares()}, shown=False, options=("--flips", "--no-lung-mask")),
    "lung-mask-alone": Variant(like="plain", shown=False),
    "default": Variant(),
    "no-lung-mask": Variant(like="default", options=("--flips", "--no-lung-mask")),
    "no-flips": Variant(like="default", options=()),
    "nothing-pasted": Variant(recipe={"scans": replace(SHARES, pasted=0.0)}),
    "no-revisits": Variant(recipe={"scans": replace(SHARES, revisited=0.0)}),
    "context": Variant(recipe={"context": 1}),
    "by-nodule": Variant(recipe={"sampling": "nodules"}),
    "tversky": Variant(recipe={"loss": "tversky"}),
    "unified-focal": Variant(recipe={"loss": "unified_focal"}),
    "temperature": Variant(recipe={"temperature": True}),
    "second-network": Variant(recipe={"reduction": Reduction()}),
}
CONTEXT = max(int(variant.recipe.get("context", 0)) for variant in VARIANTS.values())
COLUMNS = (
    "FP/scan at 0.85",
    "mean at 1/8 to 8 FP",
    "FP/scan, as the model asks",
    "found, as the model asks",
    "of 3 to 6 mm found at any score",
    "of 6 to 10 mm",
    "of 10 to 30 mm",
    "calibration error",
    "crops: pooled IoU",
    "crops: found",
    "crops: of 3 to 6 mm found",
    "minutes to train",
    "seconds for the scan's masks",
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
        parts = [list(part) for kept, part in itertools.groupby(range(len(ordered)), key=clear.__getitem__) if kept]
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


def measure(out: Path, name: str, left_out: str, *, seed: int, epochs: int) -> None:
    """Train a variant, unless that is done; score its crops and the background that it was not shown."""
    variant = VARIANTS[name]
    shown = next(other for other in PLAIN_SCANS if other != left_out) if variant.shown else "none"
    trained = trained_model(out, variant.like or name, shown, seed=seed, epochs=epochs)
    run, sides, crops, scans = folder_of(out, name, left_out, seed), out / "sides" / shown, out / "crops", out / "scans"
    run.mkdir(parents=True, exist_ok=True)
    (run / "trained.json").write_text(json.dumps({"model": str(trained.relative_to(out))}) + "\n")
    model = ("--model", trained / "model.onnx", *variant.options)
    once(run / "scans", "infer", *model, "--min-score", 0, "--volumes", *sorted((scans / left_out).glob("*.volume")))
    references = sorted((scans / left_out).glob("*.reference"))
    masks = sorted((run / "scans").glob("*.mask"))
    once(run / "scans-scores", "evaluate", "--masks", *masks, "--references", *references)
    once(run / "crops", "infer", *model, "--volumes", *tested(sides, crops / shown))
    references = sorted((crops / shown).glob("*.reference"))
    division = ("--split", sides / "split.json", "--split-name", "test")
    masks = sorted((run / "crops").glob("*.mask"))
    once(run / "crops-scores", "evaluate", "--masks", *masks, "--references", *references, *division)


def trained_model(out: Path, name: str, shown: str, *, seed: int, epochs: int) -> Path:
    """Return the folder of a variant's model, trained beside the background `shown`."""
    recipe: Recipe = replace(find_recipe("laptop"), name=name, epochs=epochs, **VARIANTS[name].recipe)
    recipes.RECIPES = MappingProxyType({**recipes.RECIPES, name: recipe})  # --recipe finds it by its name
    sides, model = out / "sides" / shown, out / "models" / f"{name}-{seed}-beside-{shown}"
    files = {side: sorted(sides.glob(f"{side}-*.slices")) for side in ("training", "validation")}
    options = ("--recipe", name, "--seed", seed, "--validation", *files["validation"])
    if not (model / "model.onnx").exists():  # a training that was stopped has left its history there
        step("train", "--training", *files["training"], *options, "--out", model)
    return model


def folder_of(out: Path, name: str, left_out: str, seed: int | str) -> Path:
    """Return where the scores of a variant are; `*` as seed gives a pattern."""
    return out / "runs" / f"{name}-{seed}" / f"left-out-{left_out}"


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
            folders = sorted(out.glob(str(folder_of(out, variant, left_out, "[0-9]*").relative_to(out))))
            rows = [row(out, folder) for folder in folders if (folder / "crops-scores" / "metrics.json").exists()]
            if rows:
                cells = [summary([line[column] for line in rows]) for column in range(len(COLUMNS))]
                print(f"| {variant} | {left_out} | {len(rows)} | {' | '.join(cells)} |")


def row(out: Path, folder: Path) -> list[float | None]:
    """Return the figures of one training, in the order of `COLUMNS`."""
    model = out / json.loads((folder / "trained.json").read_text())["model"]
    files = (
        folder / "scans-scores" / "metrics.json",
        folder / "crops-scores" / "metrics.json",
        model / "model.json",
        model / "train.run.json",
        next((folder / "scans").glob("infer*.run.json")),
    )
    scans, crops, card, training, inference = (json.loads(path.read_text()) for path in files)
    points = [point for point in scans["froc"] if point["threshold"] >= card["min_score"]]
    return [
        scans["false_positives_per_scan_at"]["0.85"]["value"],
        scans["operating_points"]["mean"]["value"],
        points[-1]["false_positives_per_scan"] if points else 0.0,
        points[-1]["sensitivity"] if points else 0.0,
        *(scans["nodules"]["sensitivity"][size] for size in ("3-6", "6-10", "10-30")),
        scans["calibration"]["error"]["value"],
        crops["iou"]["pooled"]["value"],
        crops["nodules"]["sensitivity"]["all"],
        crops["nodules"]["sensitivity"]["3-6"],
        training["seconds"] / 60,
        inference["seconds"],
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
    parser.add_argument("--left-out", choices=PLAIN_SCANS, nargs="+", default=list(PLAIN_SCANS))
    parser.add_argument("--epochs", type=int, default=12)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.variants:
        prepare(args.data, args.out)
    for left_out, seed, name in itertools.product(args.left_out, args.seeds, args.variants):
        measure(args.out, name, left_out, seed=seed, epochs=args.epochs)
    table(args.out)


if __name__ == "__main__":
    main()
