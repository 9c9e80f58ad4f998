"""The organs: body, lungs, heart, spine, ribs, trachea, as closed forms of x, y, z.

Coordinates are LPS in mm, (0, 0, 0) at the middle of the scan. D slice (z), H row (y), W column (x).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

FAT_HU, MUSCLE_HU, BLOOD_HU, BONE_HU, LUNG_HU, AIR_HU = -95, 50, 45, 520, -860, -1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Chest:
    """One patient's proportions.

    Attributes
    ----------
    half_width_mm, half_depth_mm : of the body's elliptic cross-section
    lung_hu : HU of healthy lung
    rib_phase_mm : where along z the first rib lies
    """

    half_width_mm: float
    half_depth_mm: float
    lung_hu: float
    rib_phase_mm: float

    def in_lung(self, x: Floats, y: Floats, z: Floats) -> Bools:
        """Tell which points (broadcast) lie in a lung."""
        a, b = self.half_width_mm, self.half_depth_mm
        shrink = np.sqrt(np.clip(1.0 - (z / 150.0 + 0.15) ** 2, 0.05, 1.0))
        ellipse = ((np.abs(x) - 0.49 * a) / (0.355 * a * shrink)) ** 2 + (y / (0.68 * b * shrink)) ** 2
        return np.asarray((ellipse < 1.0) & ~self.in_heart(x, y, z), dtype=np.bool_)

    def in_heart(self, x: Floats, y: Floats, z: Floats) -> Bools:
        """Tell which points lie in the heart: an ellipsoid left of the middle, in the lower half."""
        ball = ((x - 22.0) / 44.0) ** 2 + ((y + 0.28 * self.half_depth_mm) / 34.0) ** 2 + ((z + 28.0) / 40.0) ** 2
        return np.asarray(ball < 1.0, dtype=np.bool_)

    def in_body(self, x: Floats, y: Floats) -> Bools:
        """Tell which points lie within the skin."""
        return np.asarray(self._radius(x, y) < 1.0, dtype=np.bool_)

    def hu(self, x: Floats, y: Floats, z: Floats) -> NDArray[np.float32]:
        """Return HU without vessels, nodules and noise, float32 (D, H, W); x (W,), y (H, 1), z (D, 1, 1)."""
        radius, flat = self._radius(x, y)[None], np.zeros_like(z)
        layers = (
            (radius < 1.0, FAT_HU),
            (radius < 0.955, MUSCLE_HU),
            (self._in_rib(radius, x, y, z), BONE_HU),
            (self.in_lung(x, y, z), self.lung_hu),
            (self.in_heart(x, y, z), BLOOD_HU),
            ((x**2 + (y + 6.0) ** 2 < 64.0)[None] & (z > 12.0), AIR_HU),  # trachea
            (((x - 12.0) ** 2 + (y - 0.35 * self.half_depth_mm) ** 2 < 121.0)[None] & (flat == 0), BLOOD_HU),  # aorta
            *self._spine(x, y, z),
        )
        picture = np.full(np.broadcast_shapes(x.shape, y.shape, z.shape), AIR_HU, np.float32)
        for where, value in layers:
            picture[np.broadcast_to(where, picture.shape)] = value
        return picture

    def _radius(self, x: Floats, y: Floats) -> Floats:
        return np.sqrt((x / self.half_width_mm) ** 2 + (y / self.half_depth_mm) ** 2)

    def _in_rib(self, radius: Floats, x: Floats, y: Floats, z: Floats) -> Bools:
        # ribs fall from back to front: a slanted stack of rings in the chest wall
        along = (z + 28.0 * y / self.half_depth_mm + self.rib_phase_mm) % 24.0
        return np.asarray((radius > 0.875) & (radius < 0.94) & (along < 8.5) & (np.abs(x) > 12.0), dtype=np.bool_)

    def _spine(self, x: Floats, y: Floats, z: Floats) -> tuple[tuple[Bools, int], ...]:
        vertebra = np.hypot(x / 17.0, (y - 0.60 * self.half_depth_mm) / 14.0)[None]
        canal = (np.hypot(x, y - 0.60 * self.half_depth_mm - 20.0) < 7.5)[None]
        arch = (np.hypot(x / 18.0, (y - 0.60 * self.half_depth_mm - 20.0) / 12.0) < 1.0)[None]
        disc = (z + 7.0) % 27.0 < 6.0
        anywhere = np.zeros(z.shape, np.bool_)
        return (
            (arch & ~disc, BONE_HU),
            ((vertebra < 1.0) & ~disc, BONE_HU),
            ((vertebra < 0.86) & ~disc, 190),
            ((vertebra < 1.0) & disc, 85),
            (canal | anywhere, 25),
        )


def chest_of(rng: np.random.Generator) -> Chest:
    """Draw a patient."""
    half_width_mm = rng.uniform(112.0, 124.0)
    return Chest(
        half_width_mm=half_width_mm,
        half_depth_mm=half_width_mm * rng.uniform(0.70, 0.76),
        lung_hu=LUNG_HU + rng.uniform(-25.0, 25.0),
        rib_phase_mm=rng.uniform(0.0, 24.0),
    )
