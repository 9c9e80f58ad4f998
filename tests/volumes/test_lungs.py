"""A thorax drawn by hand: body ellipse, two lungs, table, noise. Indices are mm × 1.5."""

import numpy as np
import pytest

from made import ball
from slicestream.volumes.candidates import CandidateRule
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.lungs import find_lungs

SHAPE, SPACING_MM = (24, 220, 220), (3.0, 1.5, 1.5)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=SPACING_MM)
RIGHT, LEFT = (110, 65), (110, 155)  # lung centres: row, column
AIR, LUNG, TISSUE = -1000, -850, 40


def ellipse(centre, radii):
    y, x = np.ogrid[: SHAPE[1], : SHAPE[2]]
    return ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 <= 1


def thorax(lungs=(RIGHT, LEFT)):
    hu = np.full(SHAPE, AIR, np.float64)
    hu[:, ellipse((110, 110), (75, 100))] = TISSUE
    hu[:, 195:200, 20:200] = 200  # the table's shell
    hu[:, 200:210, 20:200] = -930  # its foam
    for centre in lungs:
        hu[:, ellipse(centre, (50, 34))] = LUNG
    noise = np.random.default_rng(0).normal(0, 40, SHAPE)
    return (hu + noise).astype(np.int16)


def shares(hu, *objects, geometry=GEOMETRY):
    components = np.zeros(hu.shape, np.uint16)
    for label, voxels in enumerate(objects, start=1):
        components[voxels] = label
    return find_lungs(hu, geometry).share_inside(components, np.bincount(components.reshape(-1)))[1:]


def test_solitary_nodule_is_inside_and_the_body_wall_and_the_table_are_not():
    hu = thorax()
    nodule = ball(SHAPE, (12, 110, 65), 10.0, SPACING_MM)
    hu[nodule] = TISSUE
    spine, wall, table = (
        ball(SHAPE, centre, 8.0, SPACING_MM) for centre in ((12, 172, 110), (12, 110, 20), (12, 204, 110))
    )
    assert shares(hu, nodule, spine, wall, table).tolist() == [1.0, 0.0, 0.0, 0.0]


def test_a_table_that_the_patient_lies_on_is_no_lung_though_its_shell_touches_the_back():
    hu = thorax()
    lying = hu.copy()
    lying[:, 184:189], lying[:, 189:] = 200, -880  # shell and foam, to the image's border
    lying[:, 205:208] = 200
    lying[:, 178:184, 90:130] = TISSUE
    nodule, foam = (ball(SHAPE, centre, 8.0, SPACING_MM) for centre in ((12, 110, 65), (12, 197, 110)))
    assert shares(lying, nodule, foam).tolist() == [1.0, 0.0]


def test_the_heart_between_lungs_that_meet_before_and_behind_it_is_not_inside():
    hu = thorax()
    ring = ellipse((110, 110), (50, 70)) & ~ellipse((110, 110), (35, 35))
    hu[10:14, ring] = LUNG
    heart, nodule = (ball(SHAPE, centre, 8.0, SPACING_MM) for centre in ((12, 110, 110), (12, 110, 60)))
    hu[nodule] = TISSUE
    assert shares(hu, heart, nodule).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("diameter_mm", [5, 6, 8, 12, 20, 30, 40, 50])
def test_nodule_that_sits_on_the_pleura_is_inside(diameter_mm):
    hu = thorax()
    # its outer edge lies on the lung's outer edge, column 65 - 34
    nodule = ball(SHAPE, (12, 110, 31 + diameter_mm / 3), diameter_mm / 2, SPACING_MM)
    hu[nodule] = TISSUE
    assert shares(hu, nodule)[0] > CandidateRule().min_inside


def test_one_sided_lung_is_enough():
    lungs = find_lungs(thorax(lungs=(LEFT,)), GEOMETRY)
    assert lungs.inside is not None
    assert lungs.volume_ml == pytest.approx(np.pi * 50 * 34 * 1.5**2 * 72 / 1000, rel=0.05)


def test_lung_that_a_tight_view_cuts_is_kept():
    hu = thorax()[:, 40:190, 40:190]  # 225 mm, through both lungs
    geometry = Geometry(shape=hu.shape, spacing_mm=SPACING_MM)
    assert shares(hu, ball(hu.shape, (12, 70, 10), 8.0, SPACING_MM), geometry=geometry)[0] == 1.0


def test_crop_gets_no_mask_and_says_why():
    hu = thorax()[:, 40:168, 40:168]
    lungs = find_lungs(hu, Geometry(shape=hu.shape, spacing_mm=SPACING_MM))
    assert lungs.inside is None
    assert lungs.settings() == {
        "applied": False,
        "reason": "field of view 192 mm, under 220 mm: a crop",
        "volume_ml": 0.0,
    }


def test_body_without_lung_gets_no_mask_and_drops_nothing():
    hu = thorax(lungs=())
    lungs = find_lungs(hu, GEOMETRY)
    assert lungs.settings()["reason"] == "no lung found"
    assert shares(hu, ball(SHAPE, (12, 110, 65), 10.0, SPACING_MM)).tolist() == [1.0]


def test_single_slice_has_lungs_too():
    hu = thorax()[12:13]
    assert find_lungs(hu, Geometry(shape=hu.shape, spacing_mm=SPACING_MM)).inside is not None


@pytest.mark.parametrize("shape", [(7, 151, 163), (2, 512, 300)])
def test_odd_shapes_are_covered_to_their_last_voxel(shape):
    geometry = Geometry(shape=shape, spacing_mm=(1.0, 1.6, 1.6))
    hu = np.full(shape, LUNG, np.int16)
    components = np.ones(shape, np.uint16)
    assert find_lungs(hu, geometry).share_inside(components, np.array([0, hu.size]))[1] == 1.0
