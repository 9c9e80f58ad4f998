"""The lung mask on thoraxes whose lungs, airways and bowel are known: healthy, ill, turned, cut."""

import numpy as np
import pytest

from drawn_thorax import GAS, TISSUE, airway, thorax
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.lungs import find_lungs

CORONAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0))
SAGITTAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))
FEET_LAST = ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0))


def mask_of(drawn, noise_hu=30.0):
    lungs = find_lungs(drawn.scanned(noise_hu), drawn.geometry)
    assert lungs.steps == (1, 1, 1)
    return lungs.inside


def share(inside, part):
    return np.count_nonzero(inside & part) / np.count_nonzero(part)


def extra_ml(inside, drawn):
    return np.count_nonzero(inside & ~drawn.lung) * drawn.geometry.voxel_mm3 / 1000


@pytest.mark.parametrize(
    ("spacing_mm", "noise_hu", "lung_hu"),
    [
        ((5.0, 2.0, 2.0), 30.0, -860.0),
        ((8.0, 2.0, 2.0), 30.0, -860.0),
        ((3.0, 2.0, 2.0), 90.0, -860.0),
        ((5.0, 2.0, 2.0), 30.0, -935.0),
    ],
    ids=["usual", "thick slices", "noise", "emphysema"],
)
def test_lungs_are_inside_and_airways_and_heart_are_not(spacing_mm, noise_hu, lung_hu):
    drawn = thorax(spacing_mm, lung_hu=lung_hu)
    inside = mask_of(drawn, noise_hu)
    assert share(inside, drawn.lung) > 0.98
    assert share(inside, airway(drawn) & (drawn.z > 20)) < 0.05
    assert share(inside, drawn.ball(25, -35, -30, 30)) < 0.01
    assert extra_ml(inside, drawn) < 60  # of 3.8 l


@pytest.mark.parametrize(
    ("direction_lps", "turned"),
    [
        (CORONAL, lambda axial: axial[::-1].transpose(1, 0, 2)),
        (SAGITTAL, lambda axial: axial[::-1].transpose(2, 0, 1)),
        (FEET_LAST, lambda axial: axial[::-1, :, ::-1]),
    ],
    ids=["coronal", "sagittal", "from the head, from the left"],
)
def test_a_scan_in_another_orientation_has_the_same_mask(direction_lps, turned):
    drawn = thorax()
    hu, axial = turned(drawn.scanned()), mask_of(drawn)
    spacing_mm = tuple(2.0 if abs(axis[2]) < 0.5 else 5.0 for axis in direction_lps)
    lungs = find_lungs(hu, Geometry(shape=hu.shape, spacing_mm=spacing_mm, direction_lps=direction_lps))
    assert np.array_equal(lungs.inside, turned(axial))


@pytest.mark.parametrize("bowel", ["stomach under the left dome", "colon before the liver"])
def test_gas_of_stomach_and_bowel_is_not_inside(bowel):
    drawn = thorax()
    stomach = bowel.startswith("stomach")
    gas = drawn.ball(75, -45, -70, 30, 25, 25) if stomach else drawn.tube((-100, -70, -110), (100, -70, -110), 16)
    if stomach:
        drawn.hu[drawn.ball(75, -45, -70, 36, 31, 31) & ~drawn.lung] = TISSUE
    gas &= ~drawn.lung
    drawn.hu[gas] = GAS
    inside = mask_of(drawn)
    assert share(inside, gas) < 0.02
    assert share(inside, drawn.lung) > 0.99


def test_air_under_the_arms_is_not_inside():
    drawn = thorax(view_mm=480)
    for side in (-1, 1):
        drawn.hu[((drawn.x - 205 * side) / 45) ** 2 + ((drawn.y - 20) / 45) ** 2 + 0 * drawn.z <= 1] = TISSUE
    inside = mask_of(drawn)
    assert share(inside, drawn.lung) > 0.99
    assert extra_ml(inside, drawn) < 60


AIRLESS = {
    "a collapsed lung": lambda t: t.x > 0,
    "a consolidated lower lobe": lambda t: (t.x < 0) & (t.z < -10) & (t.y > -10),
    "a broad mass on the pleura": lambda t: t.ball(-118, 0, 0, 30),
}


@pytest.mark.parametrize("what", AIRLESS)
def test_lung_without_air_is_inside_where_the_other_side_shows_that_it_is_lung(what):
    drawn = thorax()
    airless = drawn.lung & AIRLESS[what](drawn)
    drawn.hu[airless] = TISSUE
    inside = mask_of(drawn)
    assert share(inside, airless) > 0.8
    assert share(inside, drawn.lung & ~airless) > 0.99


@pytest.mark.parametrize("collapsed_hu", [-300.0, 20.0])
def test_a_lung_that_a_pneumothorax_collapsed_is_inside(collapsed_hu):
    drawn = thorax()
    side = drawn.lung & (drawn.x > 0)
    collapsed = drawn.ball(45, 10, -20, 28, 45, 60) & side
    drawn.hu[side] = GAS
    drawn.hu[collapsed] = collapsed_hu
    inside = mask_of(drawn)
    assert share(inside, collapsed) > 0.95
    assert share(inside, drawn.lung & (drawn.x < 0)) > 0.99


def test_bullae_and_a_cavity_with_a_thick_wall_on_the_pleura_are_inside():
    drawn = thorax(lung_hu=-900.0)
    bullae = (drawn.ball(-90, -30, 60, 35) | drawn.ball(95, 30, -20, 30) | drawn.ball(100, -20, 60, 25)) & drawn.lung
    drawn.hu[bullae] = -990.0
    wall, cavity = (drawn.ball(-115, 40, -40, radius) & drawn.lung for radius in (28, 20))
    drawn.hu[wall], drawn.hu[cavity] = TISSUE, GAS
    inside = mask_of(drawn)
    assert share(inside, bullae) == 1.0
    assert share(inside, wall) > 0.8
    assert share(inside, drawn.lung) > 0.99


@pytest.mark.parametrize("lung_hu", [-860.0, -925.0])
def test_lung_that_a_tight_view_cuts_is_inside_also_with_emphysema(lung_hu):
    drawn = thorax(view_mm=224, lung_hu=lung_hu)
    assert share(mask_of(drawn), drawn.lung) > 0.99


def test_most_lung_that_a_round_view_cuts_is_inside_though_its_air_runs_into_the_padding():
    drawn = thorax(view_mm=224)
    outside = drawn.x**2 + drawn.y**2 + 0 * drawn.z > 112**2
    hu = drawn.scanned()
    hu[outside] = -1024
    assert share(find_lungs(hu, drawn.geometry).inside, drawn.lung & ~outside) > 0.95


def test_a_patient_who_lies_beside_the_middle_of_the_view_gets_no_chest_wall():
    drawn = thorax()
    aside = find_lungs(np.roll(drawn.scanned(), 9, axis=2), drawn.geometry).inside
    assert np.count_nonzero(aside) == pytest.approx(np.count_nonzero(mask_of(drawn)), rel=0.002)


@pytest.mark.parametrize("index", [20, 27, 45])
def test_a_single_slice_has_its_lungs(index):
    drawn = thorax()
    hu = drawn.scanned()[index : index + 1]
    inside = find_lungs(hu, Geometry(shape=hu.shape, spacing_mm=drawn.geometry.spacing_mm)).inside
    assert share(inside, drawn.lung[index : index + 1]) > 0.99
