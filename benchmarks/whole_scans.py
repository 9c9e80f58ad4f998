"""Recipe `laptop` on whole scans of a background that it has not seen, and without each of its parts.

For each background of `fullframe-open` that is left out: train on `lidc-mini` (without the patients whose nodules were
pasted) and on the *other* background, as plain scan; score on the left-out one and on the test side's crops, which are
the same for all. Finished runs stay under `--out`: the same command goes on from there. The figures of each go into
`docs/whole-scans.json`, for trainings take hours and may be of several days and machines; the table is made of all that
is recorded there of the recipes as they are now.

    python benchmarks/whole_scans.py --data ../shared/data --out runs/whole-scans --variants plain default --seeds 0 1 2
    python benchmarks/whole_scans.py                  # docs/results.md anew, from what is recorded
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import show
from harness import ROOT, machine
from pydicom import dcmread

import slicestream.learning.recipe as recipes
from slicestream.__main__ import main as slicestream
from slicestream.learning.recipe import Recipe, Reduction, ScanShares, find_recipe
from slicestream.volumes.files import write_text

PLAIN_SCANS = {"C3N-00249": "CPTAC-PDA_C3N-00249", "Lung_Dx-A0002": "Lung-PET-CT-Dx_A0002"}
SLICES, INDEX = "training-1of1.slices", "series-1of1.json"
SHARES = find_recipe("laptop").scans
RECORDED, PAGE = ROOT / "docs/whole-scans.json", ROOT / "docs/results.md"
BEGIN = "<!-- measured: written by benchmarks/whole_scans.py -->"


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
    recipe = recipe_of(name, epochs)
    recipes.RECIPES = MappingProxyType({**recipes.RECIPES, name: recipe})  # --recipe finds it by its name
    sides, model = out / "sides" / shown, out / "models" / f"{name}-{seed}-beside-{shown}"
    files = {side: sorted(sides.glob(f"{side}-*.slices")) for side in ("training", "validation")}
    options = ("--recipe", name, "--seed", seed, "--validation", *files["validation"])
    if not (model / "model.onnx").exists():  # a training that was stopped has left its history there
        step("train", "--training", *files["training"], *options, "--out", model)
    return model


def recipe_of(name: str, epochs: int) -> Recipe:
    """Return what a variant is trained by, under its name."""
    return replace(find_recipe("laptop"), name=name, epochs=epochs, **VARIANTS[name].recipe)


def digest_of(name: str, epochs: int) -> str:
    """Return what tells trainings by this recipe from those by another, and how its scans are looked at."""
    recipe = asdict(recipe_of(VARIANTS[name].like or name, epochs))
    return hashlib.sha256(json.dumps([recipe, VARIANTS[name].options], sort_keys=True).encode()).hexdigest()[:12]


def folder_of(out: Path, name: str, left_out: str, seed: int) -> Path:
    """Return where the scores of a variant are."""
    return out / "runs" / f"{name}-{seed}" / f"left-out-{left_out}"


def tested(sides: Path, crops: Path) -> list[Path]:
    """Return the volumes of the test side."""
    patients = json.loads((sides / "split.json").read_text())["patients"]
    return [path for path in sorted(crops.glob("*.volume")) if patients.get(path.name.split("-")[0]) == "test"]


def record(out: Path, name: str, left_out: str, *, seed: int, epochs: int) -> None:
    """Put the figures of a finished run in the place of those of the same one before."""
    run = {"variant": name, "left_out": left_out, "seed": seed, "recipe": digest_of(name, epochs)}
    figures = dict(zip(COLUMNS, row(out, folder_of(out, name, left_out, seed)), strict=True))
    others = [one for one in recorded() if any(one[key] != value for key, value in run.items())]
    made = [*others, {**run, "epochs": epochs, "machine": machine(), "figures": figures}]
    made.sort(key=lambda one: (list(VARIANTS).index(one["variant"]), one["left_out"], one["recipe"], one["seed"]))
    write_text(RECORDED, json.dumps(made, indent=1) + "\n")


def recorded() -> list[dict[str, Any]]:
    """Return what is recorded of the variants that there are."""
    runs = json.loads(RECORDED.read_text()) if RECORDED.exists() else []
    return [run for run in runs if run["variant"] in VARIANTS]


def table() -> str:
    """Return what is recorded of the recipes as they are: mean over seeds, and their range; then the machines."""
    runs = [run for run in recorded() if run["recipe"] == digest_of(run["variant"], run["epochs"])]
    lines = [f"| variant | left out | epochs | seeds | {' | '.join(COLUMNS)} |"]
    lines.append(f"| {'--- | ' * (4 + len(COLUMNS))}".rstrip())
    for (name, left_out, epochs), same in itertools.groupby(
        runs, key=lambda run: (run["variant"], run["left_out"], run["epochs"])
    ):
        chosen = list(same)
        cells = [summary([run["figures"][column] for run in chosen]) for column in COLUMNS]
        seeds = " ".join(str(run["seed"]) for run in chosen)
        lines.append(f"| {name} | {left_out} | {epochs} | {seeds} | {' | '.join(cells)} |")
    machines = sorted({show.one_machine(run["machine"]) for run in runs})
    return "\n".join([*lines, "", *(f"Trained on {text}." for text in machines)])


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
    """Measure what was asked for, then make the table of all that is recorded, on the page too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of lidc-mini, fullframe-open and ct")
    parser.add_argument("--out", type=Path, help="folder of the runs")
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=[], help="none: only make the table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--left-out", choices=PLAIN_SCANS, nargs="+", default=list(PLAIN_SCANS))
    parser.add_argument("--epochs", type=int, default=12)
    args = parser.parse_args()
    if args.variants:
        if args.data is None or args.out is None:
            parser.error("--variants: need --data and --out too.")
        args.out.mkdir(parents=True, exist_ok=True)
        prepare(args.data, args.out)
    for left_out, seed, name in itertools.product(args.left_out, args.seeds, args.variants):
        measure(args.out, name, left_out, seed=seed, epochs=args.epochs)
        record(args.out, name, left_out, seed=seed, epochs=args.epochs)
    print(table())
    show.replace(PAGE, BEGIN, table())


if __name__ == "__main__":
    main()
