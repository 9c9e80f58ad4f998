"""Recipes: everything that decides what a training becomes, under a name. Free of torch, so that `--help` is quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

from slicestream.errors import OptionError
from slicestream.volumes.volume import Window

Sampling = Literal["slices", "nodules"]
Loss = Literal["dice_bce", "tversky", "unified_focal"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """How far a crop may differ from its slice; the defaults change nothing.

    Attributes
    ----------
    rotate : by any angle
    flip : left-right and up-down, each every second time
    zoom : pixels become up to this factor larger or smaller
    shift_hu, gain, noise_hu : brightness ±, contrast ± share, standard deviation of the noise: up to this
    nodule_share : share of the crops of annotated slices that are laid around a nodule pixel; the others lie anywhere
    overhang_px : how far a crop may reach out of its slice (air is there)
    """

    rotate: bool = False
    flip: bool = False
    zoom: float = 1.0
    shift_hu: float = 0.0
    gain: float = 0.0
    noise_hu: float = 0.0
    nodule_share: float = 0.0
    overhang_px: int = 0

    def __post_init__(self) -> None:
        if self.zoom < 1 or min(self.shift_hu, self.gain, self.noise_hu, self.nodule_share, self.overhang_px) < 0:
            raise ValueError(f"zoom must be 1 or more, the others 0 or more: {self}")
        if self.nodule_share > 1 or self.gain >= 1:
            raise ValueError(f"nodule_share and gain are shares of 1: {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanShares:
    """What a network is shown of whole scans, where the training side has any; the defaults show nothing more.

    Attributes
    ----------
    crops : crops of scans per epoch, as a share of the training slices
    pasted : share of these that get a nodule of another patient, in clear lung
    revisited : share of these that are laid where the network is wrong so far, as found before each epoch; the rest
        lies anywhere in the lungs
    """

    crops: float = 0.0
    pasted: float = 0.0
    revisited: float = 0.0

    def __post_init__(self) -> None:
        if min(self.crops, self.pasted, self.revisited) < 0 or self.pasted + self.revisited > 1:
            raise ValueError(f"shares must be 0 or more, pasted and revisited together 1 at most: {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reduction:
    """How the network is trained that looks again at the candidates.

    Attributes
    ----------
    widths : channels of the three convolutions of each of its two paths
    batches, batch_size : half of each batch are nodules
    pasted : share of the nodules that are shown in clear lung of a scan, where the training side has any
    tissue : share of the others that are any tissue off the nodules, not what the first stage takes for one
    """

    widths: tuple[int, int, int] = (16, 32, 48)
    batches: int = 600
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    pasted: float = 0.5
    tissue: float = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One way of training a U-Net.

    Attributes
    ----------
    widths : channels from the finest to the coarsest level
    patch_px : side of the square training crops; None: as large as the largest slice, so that all is seen
    epochs, batch_size : each epoch sees as many crops as there are slices
    sampling : "slices", each once; "nodules", those with a nodule as often as it takes to show each nodule as often as
        the next, however many slices it has, and those without one once
    context : neighbouring slices on either side that the network sees as further channels; 0: a slice alone
    learning_rate, weight_decay : of AdamW; the rate rises for `warmup` of the steps, then falls as a cosine to 0
    average : decay per step of the moving average of the weights (what is validated and exported); 0: none
    loss : "dice_bce", "tversky" or "unified_focal"
    dice_weight, bce_weight : "dice_bce" is their weighted sum
    kept : share of the validation side's nodules found whose score the model asks of every candidate, 0 to 1; None: it
        asks for none
    temperature : fit a temperature to the scores of the validation side's candidates
    patience : epochs without a better validation IoU after which training stops
    reduction : of false positives, by a second network; None: the first one's scores stay
    """

    name: str
    widths: tuple[int, ...]
    patch_px: int | None
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup: float
    average: float
    patience: int
    sampling: Sampling = "slices"
    context: int = 0
    loss: Loss = "dice_bce"
    dice_weight: float = 1.0
    bce_weight: float = 1.0
    window: Window = field(default_factory=Window)
    augmentation: Augmentation = field(default_factory=Augmentation)
    scans: ScanShares = field(default_factory=ScanShares)
    kept: float | None = None
    temperature: bool = False
    reduction: Reduction | None = None

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ValueError(f"widths {self.widths}: need two levels or more, each of 1 channel or more")
        if min(self.epochs, self.batch_size, self.patience) < 1 or self.learning_rate <= 0:
            raise ValueError("epochs, batch size, patience and learning rate must be positive")
        if self.patch_px is not None and self.patch_px % self.multiple:
            raise ValueError(f"patch of {self.patch_px} px is not a multiple of {self.multiple}")
        if not (0 <= self.warmup < 1 and 0 <= self.average < 1 and self.dice_weight + self.bce_weight > 0):
            raise ValueError("warmup and average are shares of 1; one loss needs a weight")
        if self.sampling not in get_args(Sampling) or self.loss not in get_args(Loss) or self.context < 0:
            raise ValueError(f"sampling {self.sampling}, loss {self.loss}, context {self.context}: unknown")
        if self.kept is not None and not 0 < self.kept <= 1:
            raise ValueError(f"kept {self.kept} is a share, over 0 and up to 1")

    @property
    def multiple(self) -> int:
        """What rows and columns given to the network must be a multiple of."""
        return int(2 ** (len(self.widths) - 1))

    def to_header(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


# Aldinucci et al.: 64 to 1024 channels, whole slices, rotations the only augmentation, Dice and cross-entropy.
_PAPER = Recipe(
    name="paper",
    widths=(64, 128, 256, 512, 1024),
    patch_px=None,
    epochs=100,
    batch_size=8,
    learning_rate=3e-4,
    weight_decay=1e-4,
    warmup=0.05,
    average=0.0,
    patience=20,
    augmentation=Augmentation(rotate=True),
)

# Found on small crops around real nodules: docs/results.md says what was tried.
_LAPTOP = Recipe(
    name="laptop",
    widths=(16, 32, 64, 128, 256),
    patch_px=128,
    epochs=26,
    batch_size=16,
    learning_rate=3e-3,
    weight_decay=0.02,
    warmup=0.1,
    average=0.995,
    patience=25,
    augmentation=Augmentation(
        rotate=True, flip=True, zoom=1.25, shift_hu=40, gain=0.1, noise_hu=40, nodule_share=0.0, overhang_px=16
    ),
    scans=ScanShares(crops=0.5, pasted=0.35, revisited=0.35),
    kept=0.9,
)

# Whole scans with little texture: few channels do, crops must show places without nodules too.
_PHANTOM = Recipe(
    name="phantom",
    widths=(12, 24, 48, 96),
    patch_px=96,
    epochs=18,
    batch_size=8,
    learning_rate=3e-3,
    weight_decay=0.01,
    warmup=0.1,
    average=0.98,
    patience=12,
    augmentation=Augmentation(rotate=True, flip=True, zoom=1.1, nodule_share=0.6, overhang_px=16),
)

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in (_PAPER, _LAPTOP, _PHANTOM)})


def find_recipe(name: str) -> Recipe:
    """Return the recipe of that name. Raises OptionError."""
    if name not in RECIPES:
        raise OptionError(f"--recipe {name}: unknown; need one of {', '.join(RECIPES)}.")
    return RECIPES[name]
