"""Images per second of training."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from harness import CONTENDERS, PEERS, Comparison, Contender, faster
from inputs import first_slices, png_files, training_sides

from slicestream.learning.recipe import find_recipe

OURS, PAPER, BARE = "slicestream train", "the paper's recipe", "the bare step"


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Phantom patients and their matrix, training slices of them, epochs; `epochs` of the paper's recipe are fewer."""

    recipe: str
    patients: int
    matrix: int
    slices: int
    epochs: int
    peer_epochs: int = 1


SIZES = {
    "trial": (Work(recipe="laptop", patients=8, matrix=128, slices=16, epochs=1),),
    "bench": (
        Work(recipe="laptop", patients=32, matrix=128, slices=192, epochs=3),
        Work(recipe="paper", patients=8, matrix=512, slices=8, epochs=1),
    ),
    "full": (
        Work(recipe="laptop", patients=32, matrix=128, slices=192, epochs=10, peer_epochs=3),
        Work(recipe="paper", patients=8, matrix=512, slices=64, epochs=3),
    ),
}


def comparisons(size: str, inputs: Path) -> list[Comparison]:
    """Return one per recipe."""
    return [_comparison(work, inputs) for work in SIZES[size]]


def _comparison(work: Work, inputs: Path) -> Comparison:
    recipe = find_recipe(work.recipe)
    sides = first_slices(inputs, training_sides(inputs, work.patients, work.matrix), work.slices)
    images, width = png_files(inputs, sides), recipe.widths[0]
    steps = work.epochs * -(-work.slices // recipe.batch_size)
    side = recipe.patch_px or work.matrix
    what = f"training, U-Net {width} at {work.matrix}²"
    return Comparison(
        name=f"training-{work.recipe}",
        how=f"Recipe {work.recipe} (U-Net of {width} to {recipe.widths[-1]} channels, batches of {recipe.batch_size}), "
        f"{work.slices} phantom slices of {work.matrix} × {work.matrix}, epochs: {work.epochs}; validation is "
        "not timed. The paper's recipe: the same network, loss and batch, eager float32, DataLoader with 2 workers "
        f"over PNG files, epochs: {work.peer_epochs}. The bare step: our step on one random batch that stays.",
        unit="images/s",
        contenders=[
            _ours(OURS, "our_training", sides, work.recipe, work.epochs, "{work}"),
            _ours(BARE, "bare_step", work.recipe, side, steps),
            Contender(
                name=PAPER,
                command=[
                    *(PEERS / "python", CONTENDERS / "paper_training.py", images),
                    *map(str, (width, recipe.batch_size, work.peer_epochs)),
                ],
                libraries=("torch", "pillow"),
            ),
        ],
        claims=[faster(what, OURS, PAPER, 4), faster(f"{what}, epoch", OURS, BARE, 0.9)],
    )


def _ours(name: str, script: str, *arguments: object) -> Contender:
    command = [sys.executable, CONTENDERS / f"{script}.py", *map(str, arguments)]
    return Contender(name=name, command=command, libraries=("slicestream", "torch"))
