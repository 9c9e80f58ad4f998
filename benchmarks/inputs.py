"""What the comparisons work on, made once and kept: phantom cohorts and scans, briefly trained models."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np


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
        step("split", "--slices", *slices, "--indexes", *indexes, "--fractions", 0.5, 0.3, 0.2, "--out", out)
        shutil.rmtree(prepared)

    return once(inputs / f"sides-{patients}x{matrix}", make)


def trained_model(inputs: Path, sides: Path, width: int, epochs: int) -> Path:
    """Return a folder with a U-Net of five levels, `width` channels in the first, that finds phantom nodules."""
    from slicestream.learning.checkpoint import locked_checkpoint
    from slicestream.learning.cohort import read_side
    from slicestream.learning.device import choose_device
    from slicestream.learning.model import ModelFacts, write_model
    from slicestream.learning.recipe import find_recipe
    from slicestream.learning.training import train

    def make(out: Path) -> None:
        widths = tuple(width * 2**level for level in range(5))
        recipe = replace(find_recipe("phantom"), widths=widths, epochs=epochs, learning_rate=1e-3)
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
            write_model(out, outcome.network, facts=facts, card={})
        shutil.rmtree(out / "checkpoints", ignore_errors=True)

    return once(inputs / f"unet-{width}-{sides.name}-{epochs}", make)
