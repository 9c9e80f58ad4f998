"""Training curves from history.csv: the same history gives the same bytes."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from slicestream.errors import ArtefactError
from slicestream.volumes.files import atomic_path

_LOSSES = {"training_loss": "training", "validation_loss": "validation"}
_SCORES = {
    "validation_dice": "Dice, pooled",
    "validation_iou": "IoU, pooled",
    "validation_iou_per_slice": "IoU, mean over slices",
}


def plot_history(history_csv: Path, svg: Path) -> None:
    """Draw losses and validation scores over epochs. Raises ArtefactError (no usable history), OutputError."""
    columns = _read(history_csv)
    with mpl.rc_context({"svg.hashsalt": "slicestream", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        FigureCanvasSVG(figure)
        left, right = figure.subplots(1, 2)
        _lines(left, columns, _LOSSES)
        left.set_ylabel("loss (Dice + cross-entropy)")
        left.set_ylim(bottom=0)
        _lines(right, columns, _SCORES)
        right.set_ylabel("validation side, threshold 0.5")
        right.set_ylim(0, 1)
        with atomic_path(svg) as partial:
            figure.savefig(partial, format="svg", metadata={"Date": None, "Creator": None})


def _lines(axes: Axes, columns: dict[str, list[float]], names: dict[str, str]) -> None:
    few = len(columns["epoch"]) < 3
    for name, label in names.items():
        axes.plot(columns["epoch"], columns[name], label=label, marker="o" if few else None)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)


def _read(path: Path) -> dict[str, list[float]]:
    needed = ("epoch", *_LOSSES, *_SCORES)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {name: [float(row[name]) for row in rows] for name in needed}
        if not rows or not all(math.isfinite(value) for values in columns.values() for value in values):
            raise ValueError("no epochs, or values that are no numbers")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{path}: not a usable training history ({error}); need the columns {', '.join(needed)}. "
            "Give the history.csv that `slicestream train` wrote."
        ) from error
    return columns
