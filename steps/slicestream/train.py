"""Step `train`: training shards to a model, with curves while it runs and a checkpoint that outlives a kill."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slicestream.errors import OptionError
from slicestream.learning.recipe import RECIPES, Recipe, find_recipe
from slicestream.volumes.files import write_text
from slicestream.volumes.record import RunRecord, recorded

if TYPE_CHECKING:
    from slicestream.learning.checkpoint import Checkpoint
    from slicestream.learning.cohort import Side
    from slicestream.learning.device import Device
    from slicestream.learning.group import Member
    from slicestream.learning.reduction import Reducer
    from slicestream.learning.training import Epoch, Outcome
    from slicestream.learning.validation import Found

_PLOT_EVERY_SECONDS = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `train`."""
    parser.epilog = (
        "example: slicestream train --training sides/training-*.slices --validation "
        "sides/validation-*.slices --recipe laptop --out model"
    )
    add = parser.add_argument
    add("--training", type=Path, nargs="+", required=True, metavar="FILE", help="training-*.slices shards")
    add("--validation", type=Path, nargs="+", required=True, metavar="FILE", help="validation-*.slices shards")
    add("--recipe", default="paper", help=f"one of {', '.join(RECIPES)} (default: paper)")
    add("--epochs", type=int, help="passes over the training slices (default: the recipe's)")
    add("--seed", type=int, default=0, help="start of all chance; one seed, one result (default: 0)")
    add(
        "--device",
        choices=("auto", "cpu", "cuda"),
        help="default: $SLICESTREAM_DEVICE, which a site may set, else auto: a GPU where there is one",
    )
    add("--threads", type=int, help="CPU threads of each process (default: all cores, shared evenly)")
    add("--processes", type=int, help="how many train together on each machine (default: one per GPU, else 1)")
    add("--compile", action="store_true", help="compile the network first; worth it on a GPU and for long runs")
    add(
        "--checkpoints",
        type=Path,
        metavar="DIR",
        help="folder that outlives the job (default: $SLICESTREAM_SCRATCH, else ~/.cache/slicestream/checkpoints)",
    )
    add("--out", type=Path, default=Path(), metavar="DIR", help="output folder (default: here)")


def run(args: argparse.Namespace) -> None:
    """Train and write model.onnx, weights.safetensors, model.json, history.csv, curves.svg and the run record."""
    _recipe(args)
    from slicestream.learning.group import Member
    from slicestream.learning.launch import Nodes, launch, processes_here

    processes, nodes = processes_here(args.processes, _device(args)), Nodes.of_slurm(os.environ)
    if processes * nodes.count == 1:
        _work(args, Member())
        return
    if args.compile:
        raise OptionError("--compile: for one process, several were to train. Leave it out, or give --processes 1.")
    launch(_work, args, processes=processes, nodes=nodes)


def _device(args: argparse.Namespace) -> str:
    return args.device or os.environ.get("SLICESTREAM_DEVICE") or "auto"


def _work(args: argparse.Namespace, member: Member) -> None:
    """Train as one of the processes that do so together; the first alone writes and tells."""
    from slicestream.learning.device import choose_device

    recipe, device = _recipe(args), choose_device(_device(args), threads=args.threads, member=member)
    if member.rank > 0:
        _train(args, recipe, device, _read(args, recipe), member)
        return
    with recorded("train", args.out) as record:
        sides = _read(args, recipe)
        outcome, hashes = _train_and_write(args, recipe, device, sides, member)
        _fill(record, args, recipe, device, sides)
        if member.size > 1:
            record.device = device.description.replace("(", f"({member.size} × ", 1)
        record.parameters["processes"] = member.size
        record.parameters["images_per_second"] = round(
            sum(epoch.images_per_second for epoch in outcome.history) / len(outcome.history), 1
        )
        for name, content_hash in hashes.items():
            record.add_output(args.out / name, content_hash)
    scores = outcome.scores
    print(
        f"model.onnx {hashes['model.onnx'][:12]}… epoch {outcome.best_epoch} of {len(outcome.history)}; validation at "
        f"threshold {scores.threshold}, four flips averaged: IoU pooled {scores.iou_pooled:.3f}, "
        f"mean over slices {scores.iou_per_slice:.3f}"
    )


def _read(args: argparse.Namespace, recipe: Recipe) -> tuple[Side, Side]:
    from slicestream.learning.cohort import check_apart, read_side

    scan_patch = recipe.patch_px if recipe.scans.crops else None
    seen = {"multiple": recipe.multiple, "context": recipe.context}
    training = read_side(args.training, side="training", scan_patch=scan_patch, **seen)
    validation = read_side(args.validation, side="validation", **seen)
    check_apart(training, validation)
    return training, validation


def _train_and_write(
    args: argparse.Namespace, recipe: Recipe, device: Device, sides: tuple[Side, Side], member: Member
) -> tuple[Outcome, dict[str, str]]:
    """Train under a checkpoint, which goes only when all is written; return the outcome and hashes by file name."""
    from slicestream.learning.checkpoint import checkpoint_key, default_folder, locked_checkpoint

    training, validation = sides
    configuration = {
        "recipe": recipe.to_header(),
        "seed": args.seed,
        "device": f"{device.torch_device.type}, {_precision(device)}",  # neither how many processes nor threads
        "compile": args.compile,
        "training": sorted(training.hashes.values()),
        "validation": sorted(validation.hashes.values()),
    }
    with locked_checkpoint(args.checkpoints or default_folder(), checkpoint_key(configuration)) as checkpoint:
        outcome = _train(args, recipe, device, sides, member, checkpoint=checkpoint)
        if recipe.reduction is not None:
            outcome = _reduced(outcome, sides, recipe=recipe, seed=args.seed, device=device)
        return outcome, _write(args, recipe, device, outcome, sides)


def _train(
    args: argparse.Namespace,
    recipe: Recipe,
    device: Device,
    sides: tuple[Side, Side],
    member: Member,
    *,
    checkpoint: Checkpoint | None = None,
) -> Outcome:
    from slicestream.learning.group import joined
    from slicestream.learning.training import train

    training, validation = sides
    with joined(member, device.torch_device):
        return train(
            training.slices,
            validation.slices,
            recipe=recipe,
            seed=args.seed,
            device=device,
            checkpoint=checkpoint,
            scans=training.scans,
            compiled=args.compile,
            on_epoch=_watcher(args.out, recipe) if checkpoint else lambda _: None,
        )


def _reduced(outcome: Outcome, sides: tuple[Side, Side], *, recipe: Recipe, seed: int, device: Device) -> Outcome:
    """Train the second network and tell of it. It takes minutes, so it has no checkpoint of its own."""
    from slicestream.learning.reduction import train_reducer
    from slicestream.learning.training import calibrated

    threshold = outcome.scores.threshold
    reducer = train_reducer(outcome.network, sides, recipe=recipe, threshold=threshold, seed=seed, device=device)
    found = reducer.found
    print(
        f"train: second network: area under the curve {reducer.auc:.3f} on the validation side's {found.hits.sum()} "
        f"hits and {(~found.hits).sum()} false positives (the first alone: {reducer.auc_first_stage:.3f})",
        file=sys.stderr,
        flush=True,
    )
    return dataclasses.replace(calibrated(outcome, found, recipe), reducer=reducer)


def _recipe(args: argparse.Namespace) -> Recipe:
    recipe = find_recipe(args.recipe)
    for name in ("epochs", "threads", "processes"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise OptionError(f"--{name} {value}: need 1 or more.")
    if args.seed < 0:
        raise OptionError(f"--seed {args.seed}: need 0 or more.")
    return recipe if args.epochs is None else dataclasses.replace(recipe, epochs=args.epochs)


def _watcher(out: Path, recipe: Recipe) -> Callable[[list[Epoch]], None]:
    """Return what writes history, plot and progress after each epoch; the plot at most every half minute."""
    from slicestream.figures.curves import plot_history

    drawn = -_PLOT_EVERY_SECONDS

    def watch(history: list[Epoch]) -> None:
        nonlocal drawn
        write_text(out / "history.csv", _history_csv(history))
        if time.monotonic() - drawn >= _PLOT_EVERY_SECONDS:
            plot_history(out / "history.csv", out / "curves.svg")
            drawn = time.monotonic()
        last = history[-1]
        left = (recipe.epochs - last.epoch) * sum(epoch.seconds for epoch in history) / len(history)
        print(
            f"train: epoch {last.epoch}/{recipe.epochs}, loss {last.training_loss:.4f}, validation loss "
            f"{last.validation_loss:.4f}, Dice {last.validation_dice:.3f}, IoU {last.validation_iou:.3f} (per slice "
            f"{last.validation_iou_per_slice:.3f}), {last.images_per_second:.1f} images/s, {_clock(left)} left at most",
            file=sys.stderr,
            flush=True,
        )

    return watch


def _history_csv(history: list[Epoch]) -> str:
    times = ("seconds", "images_per_second")  # the file is the same in every run of one seed
    names = [field.name for field in dataclasses.fields(history[0]) if field.name not in times]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for epoch in history:
        row = [getattr(epoch, name) for name in names]
        writer.writerow([f"{value:.9g}" if isinstance(value, float) else value for value in row])
    return text.getvalue()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _write(
    args: argparse.Namespace, recipe: Recipe, device: Device, outcome: Outcome, sides: tuple[Side, Side]
) -> dict[str, str]:
    """Write the model and the final curves; return content hashes by file name."""
    from slicestream.figures.curves import plot_history
    from slicestream.learning.model import ModelFacts, write_model

    (training, validation), reducer = sides, outcome.reducer
    facts = ModelFacts(
        window=recipe.window,
        spacing_mm=training.spacing_mm,
        threshold=outcome.scores.threshold,
        min_score=outcome.min_score,
        temperature=outcome.temperature,
        reach_mm=None if reducer is None else reducer.reach_mm,
    )
    card: dict[str, Any] = {
        "recipe": recipe.to_header(),
        "training": {
            "seed": args.seed,
            "device": device.torch_device.type,
            "precision": _precision(device),
            "epochs_run": len(outcome.history),
            "best_epoch": outcome.best_epoch,
        },
        "validation": {
            **{name: getattr(outcome.scores, name) for name in ("iou_pooled", "dice_pooled", "iou_per_slice", "loss")},
            "definition": "whole slices, probabilities averaged over four flips, at the threshold chosen on this side; "
            "pooled: over all pixels; per slice: mean over slices with a reference",
        },
        "data": {"training": training.summary(), "validation": validation.summary()},
    }
    if recipe.temperature and outcome.found is not None:
        card["validation"]["calibration"] = _calibration(outcome.found, outcome.temperature)
    if reducer is not None:
        card["reduction"] = _reduction(reducer)
    card["versions"] = _versions()
    second = None if reducer is None else reducer.network
    hashes = write_model(args.out, outcome.network, facts=facts, card=card, second=second)
    plot_history(args.out / "history.csv", args.out / "curves.svg")
    for name in ("history.csv", "curves.svg"):
        hashes[name] = hashlib.sha256((args.out / name).read_bytes()).hexdigest()
    return hashes


def _precision(device: Device) -> str:
    return "bfloat16 autocast" if device.bf16 else "float32"


def _calibration(found: Found, temperature: float) -> dict[str, Any]:
    from slicestream.volumes.calibration import calibration_error, tempered

    return {
        "candidates": len(found.scores),
        "hits": int(found.hits.sum()),
        "error": calibration_error(found.scores, found.hits),
        "error_tempered": calibration_error(tempered(found.scores, temperature), found.hits),
    }


def _reduction(reducer: Reducer) -> dict[str, Any]:
    hits = int(reducer.found.hits.sum())
    return {
        "hits": hits,
        "misses": len(reducer.found.hits) - hits,
        "auc_first_stage": reducer.auc_first_stage,
        "auc": reducer.auc,
    }


def _versions() -> dict[str, str]:
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("torch", "onnx", "onnxscript", "safetensors", "numpy")}


def _fill(
    record: RunRecord, args: argparse.Namespace, recipe: Recipe, device: Device, sides: tuple[Side, Side]
) -> None:
    training, validation = sides
    for paths, side in ((args.training, training), (args.validation, validation)):
        for path in paths:
            record.add_input(path.name, side.hashes[path.name], path.stat().st_size)
    record.device = device.description
    record.items, record.unit = len(training.slices) + len(validation.slices), "slices"
    record.parameters = {"recipe": recipe.to_header(), "seed": args.seed, "compile": args.compile}
    record.versions |= _versions()
