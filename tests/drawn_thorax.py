"""A thorax drawn by closed forms, with known truth. mm from the middle: x to the left, y to the back, z to the head."""

from dataclasses import dataclass

import numpy as np

from slicestream.volumes.geometry import Geometry

AIR, LUNG, TISSUE, GAS = -1000.0, -860.0, 40.0, -995.0
HEIGHT_MM = 270.0
AXIAL = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


@dataclass(frozen=True, kw_only=True)
class Thorax:
    """Coordinates of a grid and the HU drawn on it so far; `lung` is the truth, with what lies in lungs."""

    geometry: Geometry
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    hu: np.ndarray
    lung: np.ndarray

    def ball(self, x, y, z, *radii):
        """Return bool: an ellipsoid of these radii (one: a ball) in mm."""
        across, deep, high = radii if len(radii) == 3 else radii * 3
        return ((self.x - x) / across) ** 2 + ((self.y - y) / deep) ** 2 + ((self.z - z) / high) ** 2 <= 1

    def tube(self, start, end, radius):
        """Return bool: within `radius` of the line between two points, in mm."""
        start, along = np.asarray(start, float), np.subtract(end, start).astype(float)
        offset = [axis - first for axis, first in zip((self.x, self.y, self.z), start, strict=True)]
        t = sum(o * a for o, a in zip(offset, along, strict=True)) / (along @ along)
        t = np.clip(t, 0, 1)
        return sum((o - t * a) ** 2 for o, a in zip(offset, along, strict=True)) <= radius**2

    def scanned(self, noise_hu=30.0, seed=0):
        """Return what a scanner gives: int16 HU with noise."""
        noise = np.random.default_rng(seed).normal(0, noise_hu, self.hu.shape)
        return (self.hu + noise).clip(-1024, 3000).round().astype(np.int16)


def thorax(spacing_mm=(5.0, 2.0, 2.0), *, view_mm=360.0, lung_hu=LUNG, direction_lps=AXIAL, airways=True):
    """Draw body, table, two lungs over domes, heart, spine, and airways that open into the lungs."""
    drawn = _empty(spacing_mm, view_mm, direction_lps)
    x, y, z, hu = drawn.x, drawn.y, drawn.z, drawn.hu
    hu[(x / 160) ** 2 + (y / 115) ** 2 + 0 * z <= 1] = TISSUE
    hu[(np.abs(x) < 200) & (np.abs(y - 145) < 6) & (z < 999)] = 150.0
    for side in (-1, 1):
        dome = -85 + 60 * np.exp(-(((x - 70 * side) / 45) ** 2) - ((y + 10) / 60) ** 2)
        drawn.lung[:] |= drawn.ball(78 * side, 0, -30, 58, 88, 150) & (z > dome)
    drawn.lung[drawn.ball(25, -35, -30, 62, 48, 60)] = False  # the heart
    drawn.lung[(np.abs(x) < 18) & (z < 999) & (y < 999)] = False  # the mediastinum
    hu[drawn.lung] = lung_hu
    hu[(x / 18) ** 2 + ((y - 85) / 18) ** 2 + 0 * z <= 1] = 300.0  # the spine
    if airways:
        hu[airway(drawn, 2.0) & ~airway(drawn)] = TISSUE
        hu[airway(drawn)] = GAS
        drawn.lung[airway(drawn)] = False
    return drawn


def airway(drawn, wall_mm=0.0):
    """Return windpipe and main bronchi, wider by `wall_mm`."""
    carina = (0, 15, 30)
    found = drawn.tube(carina, (0, 15, 300), 9 + wall_mm)
    for side in (-1, 1):
        found |= drawn.tube(carina, (40 * side, 20, 0), 6.5 + wall_mm)
    return found


def _empty(spacing_mm, view_mm, direction_lps):
    """Return air on a grid around the thorax's middle."""
    sizes = [HEIGHT_MM if abs(axis[2]) > 0.5 else view_mm for axis in direction_lps]
    shape = tuple(round(size / mm) for size, mm in zip(sizes, spacing_mm, strict=True))
    indices = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij", sparse=True)
    x, y, z = (
        sum(i * mm * axis[n] for i, mm, axis in zip(indices, spacing_mm, direction_lps, strict=True)) for n in range(3)
    )
    return Thorax(
        geometry=Geometry(shape=shape, spacing_mm=spacing_mm, direction_lps=direction_lps),
        x=x,
        y=y,
        z=z,
        hu=np.full(shape, AIR, np.float32),
        lung=np.zeros(shape, np.bool_),
    )
