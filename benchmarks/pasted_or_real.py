"""Can a network tell a nodule that training pastes into a lung from a real one? AUC, by patients it has not seen.

Real: the donors of `lidc-mini` where they are. Pasted: the same donors, by the code of the training, into clear lung of
other patients' slices, at places as far from a wall and as dense around as the real one's. Both are turned, resampled
and cut out as a disc, and shown to a small convolutional network that is told how far each pixel is from the mask. It
learns on some patients (who hold the nodule and who lend the lung) and is asked about the others; 0.5 is a guess. The
same with the nodule hidden (the ring), with nothing pasted (what the place alone gives away), and with a crude paste
(what the network can see). In the plain scans of `ct` no nodule is real: there the ring around a pasted one is told
from the same place without it.

    python benchmarks/pasted_or_real.py --data ../shared/data --out runs/pasted
    python benchmarks/pasted_or_real.py --data ../shared/data --out runs/pasted --sheet runs/pasted/sheet.png
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from whole_scans import backgrounds, once

from slicestream.learning import augment
from slicestream.learning.augment import Pasting, make_scan_batch
from slicestream.learning.data import SliceSet
from slicestream.learning.recipe import Augmentation
from slicestream.learning.scans import Donors, find_clear, find_donors, find_scans
from slicestream.volumes.bootstrap import RESAMPLES, SEED, TAILS
from slicestream.volumes.files import atomic_path
from slicestream.volumes.slices import SliceStack, read_slices
from slicestream.volumes.volume import Window

RADIUS_PX = 16  # of what the network is shown
PATCH_PX = 34  # of the crop that it is cut from; so small a crop has its place in the middle, but for a pixel
AWAY_PX = 24  # of a place from its slice's edge and from any nodule: turned and scaled, a disc shows neither
FAR_PX = 8  # farther from the mask is not told apart
HIDDEN_PX = 2  # so far around its mask a nodule is hidden where the ring alone is shown
PER_STACK = 40  # places, in its middle slice
MOST = 5000  # places in whole scans
TRIED = 100  # places of which the one most like the real one's is taken
WALL_PX = 9  # the mean over such a square is a wall's or a trunk's above this
WALL_ABOVE_HU = -500.0
ROUNDS, EPOCHS, BATCH = 2, 6, 64  # each nodule is taught so many times in other places, and each of these so often
AS_IS = Augmentation(rotate=True, flip=True, zoom=1.1)
_AXIS = torch.arange(-RADIUS_PX, RADIUS_PX + 1)
_AWAY = torch.hypot(_AXIS[:, None].float(), _AXIS.float())
_DISC = _AWAY <= RADIUS_PX + 0.5


def crude(hu: Tensor, there: Tensor, drawn: Tensor, around_hu: Tensor) -> Tensor:
    """Return what a paste without blending gives: the mask and two pixels around it, as they are."""
    rim = functional.max_pool2d((drawn > 0.5).float()[:, None], 5, 1, 2)[:, 0]
    return torch.where(rim > 0, there, hu)


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """Nodules and places, N and M of them, with what kind of place each is: distance of a wall in mm, mean HU around.

    Attributes
    ----------
    who : int64 per slice, the patient
    own : int64 (N,), which of `donors`
    real, real_kind : int64 (N, 3) slice, row, column; float32 (N, 2)
    places, kind : the same (M, …)
    """

    slices: SliceSet
    donors: Donors
    who: Tensor
    own: Tensor
    real: Tensor
    real_kind: Tensor
    places: Tensor
    kind: Tensor


def gather(stacks: Sequence[SliceStack], places: Tensor) -> Material:
    """Return the donors of `stacks` that lie far enough from the edge of their slice, beside `places`."""
    slices, donors = SliceSet.from_stacks(stacks), find_donors(stacks)
    patients = {patient: number for number, patient in enumerate(sorted({stack.id.patient for stack in stacks}))}
    last = torch.stack((slices.rows, slices.columns), dim=1)[donors.index] - 1 - AWAY_PX
    own = torch.nonzero(((donors.centre >= AWAY_PX) & (donors.centre <= last)).all(1)).flatten()
    real = torch.cat((donors.index[own, None], donors.centre[own].round().long()), dim=1)
    return Material(
        slices=slices,
        donors=donors,
        who=torch.tensor([patients[stack.id.patient] for stack in stacks for _ in range(len(stack.hu))]),
        own=own,
        real=real,
        real_kind=_kinds(slices, real, donors.around_hu[own]),
        places=places,
        kind=_kinds(slices, places),
    )


def places_in_crops(stacks: Sequence[SliceStack], *, seed: int = 0) -> Tensor:
    """Return some places of each stack in clear lung, away from edge and nodules: (M, 3)."""
    generator = np.random.default_rng(seed)
    found, first, width = [], 0, 2 * AWAY_PX + 1
    for stack in stacks:
        index = len(stack.hu) // 2
        drawn = torch.from_numpy(stack.nodule[index])[None, None].float()
        tall = functional.max_pool2d(drawn, (width, 1), 1, (AWAY_PX, 0))
        near = functional.max_pool2d(tall, (1, width), 1, (0, AWAY_PX))[0, 0].numpy() > 0
        inner = np.s_[AWAY_PX:-AWAY_PX, AWAY_PX:-AWAY_PX]
        at = np.argwhere((find_clear(stack, index) & ~near)[inner]) + AWAY_PX
        some = generator.choice(at, min(PER_STACK, len(at)), replace=False)
        found.append(np.insert(some, 0, first + index, axis=1))
        first += len(stack.hu)
    return torch.from_numpy(np.concatenate(found).astype(np.int64))


def places_in_scans(stacks: Sequence[SliceStack]) -> Tensor:
    """Return some of the places in whole scans that training pastes at: (M, 3)."""
    scans = find_scans(stacks, patch=128)
    assert scans is not None
    return scans.places.clear[
        torch.randperm(len(scans.places.clear), generator=torch.Generator().manual_seed(0))[:MOST]
    ]


def _kinds(slices: SliceSet, places: Tensor, around_hu: Tensor | None = None) -> Tensor:
    """Return (N, 2): mm to the next wall or trunk within the disc, mean HU in it; a real nodule counts as its lung."""
    index, row, column = (part[:, None, None] for part in places.T)
    at = slices.first[index] + (row + _AXIS[:, None]) * slices.columns[index] + column + _AXIS
    hu = slices.hu[at].float()
    if around_hu is not None:
        nodule = functional.max_pool2d(slices.nodule[at].float()[:, None], 9, 1, 4)[:, 0] > 0
        hu = torch.where(nodule, around_hu[:, None, None], hu)
    mean = functional.avg_pool2d(hu[:, None], WALL_PX, 1, WALL_PX // 2, count_include_pad=False)[:, 0]
    wall = torch.where((mean > WALL_ABOVE_HU) & _DISC, _AWAY, float(RADIUS_PX)).amin((1, 2))
    density = (hu * _DISC).sum((1, 2)) / _DISC.sum()
    return torch.stack((wall * slices.pixel_mm[places[:, 0]], density), dim=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """What the network is shown: float32 (N, 3, S, S), 1 where pasted, the patient of the nodule."""

    crops: Tensor
    pasted: Tensor
    patient: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked.

    Attributes
    ----------
    ring : the nodule is hidden
    blank : nothing is pasted where a pasted one would be
    paired : a pasted one is told from its own place without it, not from a real one
    blend : how it is pasted; None as in training
    """

    ring: bool = False
    blank: bool = False
    paired: bool = False
    blend: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None


QUESTIONS = {
    "pasted or real": Question(),
    "pasted or real, the ring alone": Question(ring=True),
    "nothing pasted or real, the ring alone": Question(ring=True, blank=True),
    "crude paste or real": Question(blend=crude),
    "crude paste or real, the ring alone": Question(blend=crude, ring=True),
    "plain scans: pasted or not, the ring alone": Question(ring=True, paired=True),
}

Crops = tuple[Tensor, Tensor]  # images in [0, 1] and masks, (N, P, P)


def draw(material: Material, chosen: Tensor, question: Question, *, seed: int) -> tuple[Crops, Crops, Tensor]:
    """Return each nodule of the patients `chosen` (bool per patient) pasted, then the real ones; and whose they are."""
    generator = torch.Generator().manual_seed(seed)
    mine = torch.nonzero(chosen[material.who[material.real[:, 0]]]).flatten()
    lent = torch.nonzero(question.paired | chosen[material.who[material.places[:, 0]]]).flatten()
    donor, nobody = material.own[mine], torch.full((len(mine),), -1)
    pasted = Pasting(
        place=material.places[alike(material, mine, lent, generator)],
        donor=material.donors.index[donor],
        middle=material.donors.centre[donor],
        around_hu=material.donors.around_hu[donor],
    )
    real = replace(pasted, place=material.real[mine], donor=nobody)
    with patch.object(augment, "blended", question.blend or augment.blended):
        image, mask = _crops(material.slices, pasted, seed=2 * seed)
    blank = _crops(material.slices, replace(pasted, donor=nobody), seed=2 * seed)[0], mask
    other = blank if question.paired else _crops(material.slices, real, seed=2 * seed + 1)
    return (blank if question.blank else (image, mask)), other, material.who[material.real[mine, 0]]


def show(material: Material, chosen: Tensor, question: Question, *, seeds: Sequence[int]) -> Shown:
    """Return what the network is shown of the patients `chosen`: every nodule once per seed, pasted and real."""
    crops, pasted, patient = [], [], []
    for seed in seeds:
        *both, who = draw(material, chosen, question, seed=seed)
        for kind, one in zip((1.0, 0.0), both, strict=True):
            crops.append(_shown(*one, ring=question.ring))
            pasted.append(torch.full((len(who),), kind))
            patient.append(who)
    return Shown(crops=torch.cat(crops), pasted=torch.cat(pasted), patient=torch.cat(patient))


def alike(material: Material, mine: Tensor, lent: Tensor, generator: torch.Generator) -> Tensor:
    """Return for each of `mine` one of the places `lent` whose kind is like that of the real place."""
    some = lent[torch.randint(len(lent), (len(mine), TRIED), generator=generator)]
    spread = material.real_kind.std(0)
    apart = ((material.kind[some] - material.real_kind[mine, None]) / spread).square().sum(2)
    return some.gather(1, apart.argmin(1, keepdim=True))[:, 0]


def _crops(slices: SliceSet, pasting: Pasting, *, seed: int) -> Crops:
    generator = torch.Generator().manual_seed(seed)
    image, mask = make_scan_batch(
        slices, pasting, patch=PATCH_PX, window=Window(), augmentation=AS_IS, generator=generator
    )
    return image[:, 0], mask[:, 0]


def _shown(image: Tensor, mask: Tensor, *, ring: bool) -> Tensor:
    """Return image, its finest detail, and pixels from the mask, -1 where hidden: (N, 3, S, S)."""
    image, mask = discs(image, mask)
    distance, grown = torch.zeros_like(mask), mask
    for _ in range(FAR_PX):
        distance += grown == 0
        grown = functional.max_pool2d(grown[:, None], 3, 1, 1)[:, 0]
    seen = _DISC & (distance > HIDDEN_PX) if ring else _DISC.expand_as(mask)
    mean = (image * seen).sum((1, 2), keepdim=True) / seen.sum((1, 2), keepdim=True).clamp(min=1)
    image = (image - mean) * seen
    fine = image - functional.avg_pool2d(image[:, None], 3, 1, 1)[:, 0]
    return torch.stack((4 * image, 8 * fine, distance.where(seen, -1)), dim=1)


def discs(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return crops and masks (N, P, P) without what lies beyond the disc, (N, S, S)."""
    side = slice(2 * RADIUS_PX + 1)
    return image[:, side, side] * _DISC, mask[:, side, side] * _DISC


class Rings(nn.Module):
    """A small convolutional network; what it finds is averaged over the pixels of each distance from the mask."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((2, 8), (8, 12)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        rings = 12 * (FAR_PX + 1)
        hidden = (nn.BatchNorm1d(rings), nn.Dropout(0.2), nn.Linear(rings, 32), nn.ReLU(), nn.Dropout(0.2))
        self.answer = nn.Sequential(*hidden, nn.Linear(32, 1))

    def forward(self, shown: Tensor) -> Tensor:
        """Return scores (N,), higher for pasted."""
        found = self.features(shown[:, :2]).flatten(2)
        ring = functional.one_hot(shown[:, 2].long().flatten(1) + 1, FAR_PX + 2)[:, :, 1:].float()
        mean = found @ ring / ring.sum(1, keepdim=True).clamp(min=1)
        scores: Tensor = self.answer(mean.flatten(1))[:, 0]
        return scores


def learn(shown: Shown, generator: torch.Generator) -> Rings:
    """Return a network that tells pasted from real."""
    network = Rings()
    steps = EPOCHS * -(-len(shown.crops) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=5e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for some in torch.randperm(len(shown.crops), generator=generator).split(BATCH):
            flips, turns = (int(n) for n in torch.randint(4, (2,), generator=generator))
            batch = shown.crops[some].rot90(turns, (2, 3)).flip(3 if flips % 2 else ())
            loss = functional.binary_cross_entropy_with_logits(network(batch), shown.pasted[some])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def wins(network: Rings, shown: Shown, patients: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how often a pasted one of a patient scores above a real one of another, and of how many pairs: (P, P)."""
    score = network(shown.crops)
    pasted, real = (torch.nonzero(shown.pasted == kind).flatten() for kind in (1, 0))
    above = (score[pasted, None] > score[real]).double() + 0.5 * (score[pasted, None] == score[real]).double()
    who = functional.one_hot(shown.patient, patients).double()
    won = who[pasted].T @ above @ who[real]
    return won.numpy(), (who[pasted].sum(0)[:, None] * who[real].sum(0)).numpy()


def cross_validated(material: Material, question: Question) -> tuple[float, float, float]:
    """Return the AUC and its 95 % interval (bootstrap by patient): each half of the patients by the other."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    patients = int(material.who.max()) + 1
    half = torch.randperm(patients, generator=generator) % 2
    won, pairs = np.zeros((2, patients, patients))
    for number in range(2):
        *seeds, last = range((ROUNDS + 1) * number, (ROUNDS + 1) * (number + 1))
        taught = show(material, half != number, question, seeds=seeds)
        more = wins(learn(taught, generator), show(material, half == number, question, seeds=[last]), patients)
        won, pairs = won + more[0], pairs + more[1]
    weights = np.random.default_rng(SEED).multinomial(patients, np.full(patients, 1 / patients), size=RESAMPLES)
    drawn = ((weights @ won) * weights).sum(1) / ((weights @ pairs) * weights).sum(1)
    low, high = np.percentile(drawn, TAILS)
    return float(won.sum() / pairs.sum()), float(low), float(high)


def sheet(path: Path, material: Material, *, pairs: int = 48, across: int = 8) -> None:
    """Write a PNG: each real nodule, right of it the same one pasted elsewhere; below both with the mask's outline."""
    every = torch.ones(int(material.who.max()) + 1, dtype=torch.bool)
    pasted, real = (discs(*crops) for crops in draw(material, every, Question(), seed=0)[:2])
    rows = []
    for some in torch.linspace(0, len(real[0]) - 1, pairs).long().split(across):
        couples = [(kind[0][one], kind[1][one]) for one in some for kind in (real, pasted)]
        for outline in (False, True):
            rows.append(np.concatenate([_tile(image, mask, outline=outline) for image, mask in couples], axis=1))
    with atomic_path(path) as partial:
        Image.fromarray(np.concatenate(rows)).save(partial, format="PNG")


def _tile(image: Tensor, mask: Tensor, *, outline: bool, zoom: int = 3) -> NDArray[np.uint8]:
    grey, drawn = (part.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1) for part in (image, mask))
    tile = np.repeat((grey * 255).byte().numpy()[..., None], 3, axis=2)
    if outline:
        edge = functional.max_pool2d(drawn[None, None], 3, 1, 1)[0, 0] - drawn
        tile[edge.numpy() > 0] = (255, 210, 0)
    return np.pad(tile, ((2, 2), (2, 2), (0, 0)))


def microseconds(material: Material, *, count: int = 16, times: int = 30) -> float:
    """Return the CPU time of a nodule pasted into a crop of 128 pixels: a batch with less a batch without, medians."""
    pasted = Pasting(
        place=material.places[:count],
        donor=material.donors.index[:count],
        middle=material.donors.centre[:count],
        around_hu=material.donors.around_hu[:count],
    )
    spent: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * times):
        batch = pasted if turn % 2 else replace(pasted, donor=torch.full((count,), -1))
        begin, generator = time.process_time(), torch.Generator().manual_seed(0)
        make_scan_batch(material.slices, batch, patch=128, window=Window(), augmentation=AS_IS, generator=generator)
        spent[bool(turn % 2)].append(time.process_time() - begin)
    return (statistics.median(spent[True]) - statistics.median(spent[False])) / count * 1e6


def prepared(data: Path, out: Path, share: str) -> list[SliceStack]:
    """Return the slices of a share of `lidc-mini` and of the plain scans, preprocessed once into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "key").write_text("a key for comparisons only\n")
    backgrounds(data, out)
    cohort = ("--cohort", data / "lidc-mini", "--backgrounds", out / "backgrounds", "--share", share)
    once(out / "crops", "preprocess", *cohort, key=out / "key")
    return [stack for stack in read_slices(next((out / "crops").glob("*.slices"))) if len(stack.hu)]


def main() -> None:
    """Print the AUC of each question with its interval, and what pasting costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of lidc-mini and ct")
    parser.add_argument("--out", type=Path, required=True, help="folder for the preprocessed slices")
    parser.add_argument("--sheet", type=Path, help="PNG to write instead: real and pasted nodules in pairs")
    parser.add_argument(
        "--share", default="1/1", help="of the patients, as that of `slicestream preprocess`; first: 1/n"
    )
    args = parser.parse_args()
    stacks = prepared(args.data, args.out, args.share)
    small = [stack for stack in stacks if max(stack.hu.shape) < 256]
    crops = gather(small, places_in_crops(small))
    if args.sheet:
        sheet(args.sheet, crops)
        return
    print(f"{int(crops.who.max()) + 1} patients, {len(crops.own)} slices of nodules, {len(crops.places)} places")
    print(f"{microseconds(crops):.0f} µs of CPU for each nodule pasted")
    in_scans = gather(stacks, places_in_scans(stacks))
    for name, question in QUESTIONS.items():
        material = in_scans if question.paired else crops
        auc, low, high = cross_validated(material, question)
        print(f"{name:42s} AUC {auc:.3f} ({low:.3f} to {high:.3f})", flush=True)


if __name__ == "__main__":
    main()
