"""Nodules: balls of known centre, diameter and HU, some with a denser core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicestream.synthesis.chest import Chest
from slicestream.synthesis.vessels import Vessel

KINDS = ("solitary", "juxtapleural", "juxtavascular", "part-solid")
SMALLEST_MM, LARGEST_MM = 5.0, 30.0
_SUBSAMPLES = 5
_HALF_SLAB_MM = 33.0  # every scan reaches this far from the middle, so that no nodule is cut
_TRIES = 4000


@dataclass(frozen=True, kw_only=True, slots=True)
class Nodule:
    """A ball; `core_share` of its diameter is a ball of `core_hu` in its middle (0: none)."""

    kind: str
    centre_mm: tuple[float, float, float]
    diameter_mm: float
    hu: float
    core_hu: float = 0.0
    core_share: float = 0.0

    @property
    def volume_mm3(self) -> float:
        """Volume of the whole ball, pi/6 d³, also where it reaches into the chest wall."""
        return float(np.pi / 6.0 * self.diameter_mm**3)

    @property
    def mean_hu(self) -> float:
        """HU averaged over the ball."""
        core = self.core_share**3
        return self.hu * (1.0 - core) + self.core_hu * core

    def grown(self, factor: float) -> Nodule:
        """Return the same nodule at a later study, its diameter times `factor`."""
        return replace(self, diameter_mm=min(self.diameter_mm * factor, LARGEST_MM))


def nodules_of(chest: Chest, vessels: Sequence[Vessel], number: int, rng: np.random.Generator) -> list[Nodule]:
    """Place `number` nodules that do not touch one another; kinds in turn from a random first one."""
    placed: list[Nodule] = []
    first = int(rng.integers(len(KINDS)))
    for turn in range(number):
        kind = KINDS[(first + turn) % len(KINDS)]
        smallest = 10.0 if kind == "part-solid" else SMALLEST_MM
        for attempt in range(_TRIES):
            largest = max(
                LARGEST_MM * 0.997 ** (attempt // 4), smallest * 1.2
            )  # where there is no room for a large one
            diameter_mm = float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
            centre = _place(kind, chest, vessels, diameter_mm / 2, rng)
            if centre is not None and all(_apart(centre, diameter_mm, other) for other in placed):
                placed.append(_nodule(kind, centre, diameter_mm, rng))
                break
    return placed


def coverage_of(
    centre_mm: tuple[float, float, float], diameter_mm: float, grid: Sequence[NDArray[Any]], size_mm: Sequence[float]
) -> NDArray[np.float32]:
    """Return the share of each voxel within a ball by 5x5x5 points; grid z (D,), y (H,), x (W,) → (D, H, W)."""
    steps = (np.arange(_SUBSAMPLES) + 0.5) / _SUBSAMPLES - 0.5
    squares = [
        ((axis[:, None] + steps * size - centre) ** 2).astype(np.float32).ravel()
        for axis, size, centre in zip(grid, size_mm, reversed(centre_mm), strict=True)
    ]
    z, y, x = squares
    within = z[:, None, None] + y[:, None] + x < (diameter_mm / 2) ** 2
    shape = [n for axis in grid for n in (axis.size, _SUBSAMPLES)]
    share: NDArray[np.float32] = within.reshape(shape).mean(axis=(1, 3, 5), dtype=np.float32)
    return share


def _nodule(kind: str, centre: NDArray[Any], diameter_mm: float, rng: np.random.Generator) -> Nodule:
    x, y, z = (round(float(v), 3) for v in centre)
    solid = round(rng.uniform(15.0, 65.0), 1)
    if kind != "part-solid":
        return Nodule(kind=kind, centre_mm=(x, y, z), diameter_mm=round(diameter_mm, 3), hu=solid)
    return Nodule(
        kind=kind,
        centre_mm=(x, y, z),
        diameter_mm=round(diameter_mm, 3),
        hu=round(rng.uniform(-480.0, -380.0), 1),
        core_hu=solid,
        core_share=round(rng.uniform(0.4, 0.6), 3),
    )


def _place(
    kind: str, chest: Chest, vessels: Sequence[Vessel], radius_mm: float, rng: np.random.Generator
) -> NDArray[np.float64] | None:
    side = rng.choice((-1.0, 1.0))
    half = _HALF_SLAB_MM - radius_mm
    if kind == "juxtavascular":
        thin = [v for v in vessels if v.radius_mm < 1.6 and abs(v.end_mm[2]) < half]
        centre = np.asarray(thin[int(rng.integers(len(thin)))].end_mm) if thin else np.zeros(3)
        return centre if _ball_in_lung(chest, centre, radius_mm + 1.5) else None
    middle = np.array([side * 0.49 * chest.half_width_mm, 0.0, 0.0])
    if kind == "juxtapleural":
        angle = rng.uniform(-1.0, 1.0)  # towards the ribs, not the heart
        outward = np.array([side * np.cos(angle), np.sin(angle), 0.0])
        start = middle + np.array([0.0, 0.0, rng.uniform(-half, half)])
        steps = np.arange(0.0, 80.0, 0.25)
        inside = chest.in_lung(*(start[:, None] + outward[:, None] * steps))
        centre = start + outward * (steps[int(np.argmin(inside))] - 0.9 * radius_mm)
        return (
            centre if inside[0] and _ball_in_lung(chest, centre - outward * 0.45 * radius_mm, radius_mm * 0.6) else None
        )
    centre = middle + rng.uniform(-1.0, 1.0, 3) * [45.0, 60.0, half]
    return centre if _ball_in_lung(chest, centre, radius_mm + 2.5) else None


def _ball_in_lung(chest: Chest, centre: NDArray[Any], radius_mm: float) -> bool:
    # 100 points spread evenly over the sphere (Fibonacci lattice)
    k = np.arange(100) + 0.5
    z, turn = 1.0 - 2.0 * k / 100, np.pi * (1 + 5**0.5) * k
    flat = np.sqrt(1.0 - z**2)
    sphere = np.stack((flat * np.cos(turn), flat * np.sin(turn), z))
    return bool(chest.in_lung(*(centre[:, None] + radius_mm * sphere)).all())


def _apart(centre: NDArray[Any], diameter_mm: float, other: Nodule) -> bool:
    return bool(np.linalg.norm(centre - other.centre_mm) > (diameter_mm + other.diameter_mm) / 2 + 4.0)
