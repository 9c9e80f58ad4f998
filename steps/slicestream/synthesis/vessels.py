"""Branching vessels: capsules that leave the hilum, fork and grow thin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicestream.synthesis.chest import Chest

Points = NDArray[np.float64]

_FIRST_RADIUS_MM = 2.6
_FIRST_LENGTH_MM = 20.0
_GENERATIONS = 6
_BRANCHES = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class Vessel:
    """A straight piece: from `start_mm` to `end_mm` (x, y, z), `radius_mm` thick."""

    start_mm: Points
    end_mm: Points
    radius_mm: float


def vessels_of(chest: Chest, rng: np.random.Generator) -> list[Vessel]:
    """Grow the trees of both lungs; pieces that start outside a lung are not grown on."""
    pieces: list[Vessel] = []
    for side in (-1.0, 1.0):
        for _ in range(_BRANCHES):
            hilum = np.array([side * 0.20 * chest.half_width_mm, rng.uniform(-6, 6), rng.uniform(-25, 25)])
            heading = np.array([side, rng.uniform(-1.2, 1.2), rng.uniform(-0.9, 0.9)])
            _grow(pieces, chest, rng, hilum, heading / np.linalg.norm(heading))
    return pieces


def _grow(pieces: list[Vessel], chest: Chest, rng: np.random.Generator, hilum: Points, heading: Points) -> None:
    tips = [(hilum, heading)]
    for generation in range(_GENERATIONS):
        length_mm, radius_mm = _FIRST_LENGTH_MM * 0.82**generation, _FIRST_RADIUS_MM * 0.78**generation
        grown = []
        for start, direction in tips:
            end = start + direction * length_mm * rng.uniform(0.8, 1.2)
            pieces.append(Vessel(start_mm=start, end_mm=end, radius_mm=radius_mm))
            if generation > 0 and not chest.in_lung(*end):
                continue
            for _ in range(2):
                bent = direction + rng.normal(0.0, 0.42, 3)
                grown.append((end, bent / np.linalg.norm(bent)))
        tips = grown


def coverage_of(vessel: Vessel, x: NDArray[Any], y: NDArray[Any], z: NDArray[Any]) -> NDArray[np.float32]:
    """Return the share of each voxel within the vessel, about; x (W,), y (H, 1), z (D, 1, 1) → (D, H, W)."""
    axis = vessel.end_mm - vessel.start_mm
    dx, dy, dz = x - vessel.start_mm[0], y - vessel.start_mm[1], z - vessel.start_mm[2]
    along = np.clip((dx * axis[0] + dy * axis[1] + dz * axis[2]) / (axis @ axis), 0.0, 1.0)
    distance = np.sqrt((dx - along * axis[0]) ** 2 + (dy - along * axis[1]) ** 2 + (dz - along * axis[2]) ** 2)
    edge_mm = x[1] - x[0] if x.size > 1 else 1.0
    return np.asarray(np.clip(0.5 + (vessel.radius_mm - distance) / edge_mm, 0.0, 1.0), np.float32)
