"""What the comparisons work on, made once and kept: phantom cohorts and scans, briefly trained models."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from slicestream.learning.networks import UNet


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Make a folder unless it is there, whole or not at all."""
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        make(unfinished)
        unfinished.rename(folder)
    return folder


def step(name: str, *arguments: object) -> None:
    """Run a step as the command line does, in a process of its own."""
    command = [sys.executable, "-m", "slicestream", name, *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def phantom_cohort(inputs: Path, patients: int, matrix: int) -> Path:
    """Return a synthetic cohort, as `slicestream phantom` makes it."""
    name = f"phantom-{patients}x{matrix}"
    return once(inputs / name, lambda out: step("phantom", "--patients", patients, "--matrix", matrix, "--out", out))


def phantom_scan(inputs: Path, slices: int, matrix: int) -> Path:
    """Return a folder with one chest CT of 1 mm slices, as `scan.volume` and, for the peers, as `hu.npy` int16."""
    from slicestream.synthesis.chest import chest_of
    from slicestream.synthesis.nodules import nodules_of
    from slicestream.synthesis.scan import Protocol, scan
    from slicestream.synthesis.vessels import vessels_of
    from slicestream.volumes.geometry import Geometry
    from slicestream.volumes.volume import SeriesId, Volume, write_volume

    def make(out: Path) -> None:
        rng = np.random.default_rng(0)
        chest = chest_of(rng)
        vessels = vessels_of(chest, rng)
        nodules = nodules_of(chest, vessels, 5, rng)
        pixel_mm = 300 / matrix
        protocol = Protocol(matrix=matrix, pixel_mm=pixel_mm, slice_mm=1.0, slices=slices, noise_hu=24.0)
        hu, _ = scan(protocol, chest, vessels, nodules, rng)
        geometry = Geometry(shape=hu.shape, spacing_mm=(1.0, pixel_mm, pixel_mm))
        name = SeriesId(patient="0" * 16, series="0" * 16)
        write_volume(out / "scan.volume", Volume(id=name, hu=hu, geometry=geometry))
        np.save(out / "hu.npy", hu)

    return once(inputs / f"scan-{slices}x{matrix}", make)


def training_sides(inputs: Path, patients: int, matrix: int) -> Path:
    """Return a folder with the shards of a phantom cohort, `training-*.slices` and `validation-*.slices`."""
    cohort = phantom_cohort(inputs, patients, matrix)

    def make(out: Path) -> None:
        prepared = out / "prepared"
        step("preprocess", "--cohort", cohort, "--pseudonym-key", cohort / "pseudonym_key", "--out", prepared)
        slices, indexes = prepared.glob("training-*.slices"), prepared.glob("series-*.json")
        step("split", "--slices", *slices, "--indexes", *indexes, "--fractions", 0.6, 0.2, 0.2, "--out", out)
        shutil.rmtree(prepared)

    return once(inputs / f"sides-{patients}x{matrix}", make)


def trained_model(inputs: Path, matrix: int, width: int, epochs: int, times: int = 1) -> Path:
    """Return a folder with a U-Net of five levels that finds phantom nodules, `width` × `times` channels in the first.

    Trained with `width` of them on small crops around the nodules of 64 slices of 8 phantom patients: it has to find
    some, not to be good.
    """
    from slicestream.learning.checkpoint import locked_checkpoint
    from slicestream.learning.cohort import read_side
    from slicestream.learning.device import choose_device
    from slicestream.learning.model import ModelFacts, write_model
    from slicestream.learning.recipe import find_recipe
    from slicestream.learning.training import train

    sides = first_slices(inputs, training_sides(inputs, 8, matrix), 64, validation=4)

    def make(out: Path) -> None:
        widths = tuple(width * 2**level for level in range(5))
        close = replace(find_recipe("phantom").augmentation, nodule_share=1.0)
        recipe = replace(
            find_recipe("phantom"), widths=widths, epochs=epochs, patience=epochs, patch_px=64, augmentation=close
        )
        training, validation = (
            read_side(sorted(sides.glob(f"{side}-*.slices")), side=side, multiple=recipe.multiple)
            for side in ("training", "validation")
        )
        with locked_checkpoint(out / "checkpoints", "bench") as checkpoint:
            outcome = train(
                training.slices,
                validation.slices,
                recipe=recipe,
                seed=0,
                device=choose_device("cpu"),
                checkpoint=checkpoint,
                on_epoch=lambda history: print(f"  {history[-1]}", file=sys.stderr),
            )
            facts = ModelFacts(window=recipe.window, spacing_mm=training.spacing_mm, threshold=outcome.scores.threshold)
            write_model(out, widened(outcome.network, times), facts=facts, card={})
        shutil.rmtree(out / "checkpoints", ignore_errors=True)

    return once(inputs / f"unet-{width * times}-{matrix}-{epochs}", make)


def widened(network: UNet, times: int) -> UNet:
    """Return what computes the same with `times` as many channels: each is there so often, and counts for its share.

    As Chen et al. 2016 (Net2Net, arXiv:1511.05641) widen a network; random weights would find nothing to compare.
    """
    from slicestream.learning.networks import UNet

    wide, weights = UNet([times * width for width in network.widths]), network.state_dict()
    for name, value in weights.items():
        if value.ndim and not name.startswith("head."):
            weights[name] = value.repeat_interleave(times, 0)
        if value.ndim == 4 and name != "down.0.body.0.weight":  # the image stays one channel
            weights[name] = weights[name].repeat_interleave(times, 1) / times
    wide.load_state_dict(weights)
    return wide.eval()


def reference_mask(inputs: Path, model: Path, scan: Path) -> Path:
    """Return what float32, slice by slice, finds in the scan: `mask` after our rules, `over_threshold` before them."""
    from slicestream.inference.model import load_model
    from slicestream.inference.predict import predict
    from slicestream.inference.region import whole
    from slicestream.volumes.candidates import LEVELS, CandidateRule, find_candidates
    from slicestream.volumes.lungs import find_lungs
    from slicestream.volumes.volume import read_volume

    def make(out: Path) -> None:
        volume, facts = read_volume(scan / "scan.volume"), load_model(model / "model.onnx", threads=1)
        probability = predict(facts, volume.hu, whole(volume.hu.shape))
        rule = CandidateRule(threshold=facts.threshold, min_score=facts.min_score)
        found = find_candidates(probability, volume.geometry, rule=rule, lungs=find_lungs(volume.hu, volume.geometry))
        if not found.candidates:
            raise RuntimeError(f"{model.name} finds nothing in {scan.name}: nothing to compare masks by")
        over = probability >= facts.threshold * LEVELS
        kept = {"mask": found.labels > 0, "over_threshold": over, "threshold": facts.threshold}
        np.savez_compressed(out / "reference.npz", **kept)

    return once(inputs / f"reference-{model.name}-{scan.name}", make) / "reference.npz"


def first_slices(inputs: Path, sides: Path, count: int, validation: int = 2) -> Path:
    """Return shards with `count` training slices and few to validate on, those with a nodule first."""
    from slicestream.volumes.slices import SliceStack, read_slices, write_slices

    def cut(stacks: list[SliceStack], left: int) -> Iterator[SliceStack]:
        for stack in stacks:
            chosen = np.sort(np.argsort(~stack.nodule.any(axis=(1, 2)), kind="stable")[:left])
            left -= len(chosen)
            yield stack.part(chosen)
        if left:
            raise RuntimeError(f"{sides.name}: {left} slices too few")

    def make(out: Path) -> None:
        for side, slices in (("training", count), ("validation", validation)):
            stacks = [stack for path in sorted(sides.glob(f"{side}-*.slices")) for stack in read_slices(path)]
            write_slices(out / f"{side}-1.slices", [stack for stack in cut(stacks, slices) if len(stack.hu)])

    return once(inputs / f"{sides.name}-first-{count}-{validation}", make)


def png_files(inputs: Path, sides: Path) -> Path:
    """Return a folder with the training slices as the paper's recipe has them: 8 bits, lung window, and masks."""
    from PIL import Image

    from slicestream.volumes.slices import read_slices
    from slicestream.volumes.volume import Window

    def make(out: Path) -> None:
        (path,) = sides.glob("training-*.slices")
        for stack in read_slices(path):
            for number, (hu, nodule) in enumerate(zip(stack.hu, stack.nodule, strict=True)):
                for what, values in (("image", Window().scale(hu) * 255), ("mask", nodule * 255)):
                    Image.fromarray(values.astype(np.uint8)).save(out / f"{stack.id}-{number}.{what}.png")

    return once(inputs / f"{sides.name}-png", make)
