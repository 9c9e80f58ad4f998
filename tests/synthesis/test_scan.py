"""Synthetic chests: what is drawn is what is said."""

from __future__ import annotations

import numpy as np
import pytest

from slicestream.synthesis.chest import Chest, chest_of
from slicestream.synthesis.nodules import KINDS, Nodule, coverage_of, nodules_of
from slicestream.synthesis.scan import Protocol, protocol_of, scan
from slicestream.synthesis.vessels import vessels_of

PROTOCOL = Protocol(matrix=192, pixel_mm=1.3, slice_mm=2.0, slices=42, noise_hu=25.0)
CHEST = Chest(half_width_mm=118.0, half_depth_mm=86.0, lung_hu=-860.0, rib_phase_mm=0.0)


def test_a_ball_covers_its_volume() -> None:
    axis = np.arange(-15.0, 16.0)
    share = coverage_of((0.3, -0.2, 0.1), 20.0, (axis, axis, axis), (1.0, 1.0, 1.0))
    assert share.sum() == pytest.approx(np.pi / 6 * 20**3, rel=0.005)


def test_a_solid_nodule_has_its_hu_volume_and_place() -> None:
    nodule = Nodule(kind="solitary", centre_mm=(60.0, 5.0, 3.0), diameter_mm=20.0, hu=40.0)
    hu, labels = scan(PROTOCOL, CHEST, [], [nodule], np.random.default_rng(0))
    voxel_mm3 = PROTOCOL.slice_mm * PROTOCOL.pixel_mm**2
    assert (labels == 1).sum() * voxel_mm3 == pytest.approx(nodule.volume_mm3, rel=0.03)
    centre = [axis[index].mean() for axis, index in zip(PROTOCOL.axes_mm, np.nonzero(labels), strict=True)]
    assert centre == pytest.approx([3.0, 5.0, 60.0], abs=0.2)
    z, y, x = (int(np.abs(axis - c).argmin()) for axis, c in zip(PROTOCOL.axes_mm, (3.0, 5.0, 60.0), strict=True))
    assert hu[z - 2 : z + 3, y - 3 : y + 4, x - 3 : x + 4].mean() == pytest.approx(40.0, abs=8.0)


def test_a_part_solid_nodule_has_the_mean_hu_it_says() -> None:
    nodule = Nodule(
        kind="part-solid", centre_mm=(60.0, 5.0, 3.0), diameter_mm=26.0, hu=-420.0, core_hu=40.0, core_share=0.5
    )
    hu, labels = scan(PROTOCOL, CHEST, [], [nodule], np.random.default_rng(0))
    assert nodule.mean_hu == pytest.approx(-420 * 7 / 8 + 40 / 8)
    assert hu[labels == 1].mean() == pytest.approx(nodule.mean_hu, abs=25.0)


def test_noise_has_the_spread_it_says() -> None:
    hu, _ = scan(PROTOCOL, CHEST, [], [], np.random.default_rng(0))
    air = hu[:, :12, :12].astype(float)
    assert air.std() == pytest.approx(25.0, rel=0.05)
    assert air.mean() == pytest.approx(-1000.0, abs=1.0)


def test_tissues_have_their_hu() -> None:
    hu, _ = scan(PROTOCOL, CHEST, [], [], np.random.default_rng(0))
    middle = PROTOCOL.matrix // 2
    assert hu[20, middle - 5 : middle + 5, middle - 47 : middle - 40].mean() == pytest.approx(-860, abs=15)  # lung
    assert np.percentile(hu, 99.9) > 350  # ribs and spine


def test_vessels_stay_in_the_lung_and_bring_it_to_blood() -> None:
    rng = np.random.default_rng(3)
    vessels = vessels_of(CHEST, rng)
    bare, _ = scan(PROTOCOL, CHEST, [], [], np.random.default_rng(0))
    filled, _ = scan(PROTOCOL, CHEST, vessels, [], np.random.default_rng(0))
    changed = filled.astype(int) - bare > 300
    z, y, x = PROTOCOL.axes_mm
    lung = CHEST.in_lung(x, y[:, None], z[:, None, None])
    assert 0.01 < changed.sum() / lung.sum() < 0.10
    assert (changed & lung).sum() > 0.95 * changed.sum()


@pytest.mark.parametrize("seed", range(8))
def test_nodules_are_apart_within_the_scan_and_of_every_kind(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chest = chest_of(rng)
    nodules = nodules_of(chest, vessels_of(chest, rng), 4, rng)
    assert {nodule.kind for nodule in nodules} == set(KINDS)
    for nodule in nodules:
        assert 5.0 <= nodule.diameter_mm <= 30.0
        assert abs(nodule.centre_mm[2]) + nodule.diameter_mm / 2 <= 33.5
        x, y, _ = nodule.centre_mm
        assert chest.in_body(np.array(x), np.array(y))
    centres = np.array([nodule.centre_mm for nodule in nodules])
    gaps = np.linalg.norm(centres[:, None] - centres, axis=-1) + np.eye(4) * 1e3
    radii = np.array([nodule.diameter_mm / 2 for nodule in nodules])
    assert (gaps > radii[:, None] + radii).all()


def test_a_juxtapleural_nodule_reaches_the_wall_and_a_solitary_one_does_not() -> None:
    rng = np.random.default_rng(1)
    chest = chest_of(rng)
    for nodule in nodules_of(chest, vessels_of(chest, rng), 5, rng):
        points = rng.normal(size=(3, 4000))
        sphere = np.array(nodule.centre_mm)[:, None] + points / np.linalg.norm(points, axis=0) * nodule.diameter_mm / 2
        inside = chest.in_lung(*sphere).mean()
        if nodule.kind == "juxtapleural":
            assert 0.5 < inside < 1.0
        elif nodule.kind == "solitary":
            assert inside == 1.0


def test_protocols_cover_the_nodules_whatever_is_drawn() -> None:
    for seed in range(20):
        protocol = protocol_of(np.random.default_rng(seed), 256)
        assert protocol.axes_mm[0][-1] >= 33.5
        assert 1.0 <= protocol.pixel_mm <= 1.3
        assert 18 <= protocol.noise_hu <= 30
