import numpy as np
import pytest

from made import ball, volume
from slicestream.volumes.measures import diameters_mm, longest_diameter_mm, measure


def ellipse(long_px: float, short_px: float, degrees: float) -> np.ndarray:
    """Return a filled ellipse of these axes, its long one turned by so much from the columns."""
    turn = np.deg2rad(degrees)
    y, x = np.mgrid[-60:61, -60:61]
    along, across = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
    return ((along / (long_px / 2)) ** 2 + (across / (short_px / 2)) ** 2 <= 1)[None]


@pytest.mark.parametrize("degrees", [0, 17, 45, 90, 123])
@pytest.mark.parametrize(("long_px", "short_px"), [(80, 40), (50, 20), (30, 25)])
def test_a_turned_ellipse_measures_its_two_axes(long_px: int, short_px: int, degrees: float) -> None:
    longest, across = diameters_mm(ellipse(long_px, short_px, degrees), (1.0, 1.0, 1.0))
    assert longest == pytest.approx(long_px, abs=1.5)
    assert across == pytest.approx(short_px, abs=2)


def test_both_diameters_of_a_disc_are_its_own() -> None:
    disc = ball((1, 31, 31), (0, 15, 15), 10.0)
    assert diameters_mm(disc, (5.0, 0.5, 0.5)) == pytest.approx((10.5, 10.5), abs=0.6)


def test_spacing_that_differs_by_axis_is_respected() -> None:
    # 4 columns of 2 mm and 21 rows of 0.5 mm: 10.5 mm long and 8 mm wide but for the corners
    box = np.zeros((1, 40, 10), bool)
    box[0, 5:26, 3:7] = True
    longest, across = diameters_mm(box, (1.0, 0.5, 2.0))
    assert longest == pytest.approx(np.hypot(20 * 0.5, 3 * 2.0) + 1.25)
    assert across < longest


def test_the_perpendicular_is_taken_in_the_slice_of_the_longest() -> None:
    shape = np.zeros((2, 20, 40), bool)
    shape[0, 10, 5:35] = True  # long and thin
    shape[1, 2:18, 10:20] = True  # thick, but shorter
    assert diameters_mm(shape, (3.0, 1.0, 1.0)) == (30.0, 1.0)


def test_it_is_a_chord_and_no_shadow() -> None:
    # a step: two bars side by side, each 5 high; no line at a right angle is as long as both together
    step = np.zeros((1, 30, 60), bool)
    step[0, 10:15, 5:30] = True
    step[0, 15:20, 30:55] = True
    _, across = diameters_mm(step, (1.0, 1.0, 1.0))
    assert across < 8


def test_the_perpendicular_is_never_the_longer_one() -> None:
    generator = np.random.default_rng(5)
    for _ in range(50):
        shape = generator.random((2, 12, 9)) > 0.7
        longest, across = diameters_mm(shape, (2.0, 0.7, 0.9))
        assert 0 < across <= longest == longest_diameter_mm(shape, (2.0, 0.7, 0.9))


def test_one_voxel_measures_one_pixel_and_nothing_measures_nothing() -> None:
    one = np.zeros((1, 3, 3), bool)
    assert diameters_mm(one, (1.0, 0.5, 0.5)) == (0.0, 0.0)
    one[0, 1, 1] = True
    assert diameters_mm(one, (1.0, 0.5, 0.5)) == (0.5, 0.5)


def test_mean_and_deviation_are_those_of_the_voxels() -> None:
    hu, labels = np.zeros((1, 4, 4), np.int16), np.zeros((1, 4, 4), np.uint16)
    hu[0, 1, 1:3], labels[0, 1, 1:3] = (-20, 40), 3
    (label, found), *_ = measure(volume(hu), labels, (0.0, 0.0, 0.0)).items()
    assert (label, found.mean_hu, found.std_hu, found.volume_mm3) == (3, 10.0, 30.0, 2.0)
    assert found.written("std_hu") == 30.0
    assert measure(volume(hu), np.zeros_like(labels), (0.0, 0.0, 0.0)) == {}


def test_disc_of_21_pixels_across_measures_21_pixels() -> None:
    disc = ball((1, 31, 31), (0, 15, 15), 10.0)
    assert longest_diameter_mm(disc, (5.0, 1.0, 1.0)) == pytest.approx(21.0)
    assert longest_diameter_mm(disc, (5.0, 0.5, 0.5)) == pytest.approx(10.5)


def test_diameter_is_taken_within_a_slice_and_not_across_slices() -> None:
    rod = np.zeros((4, 20, 20), bool)
    rod[0:4, 5, 5] = True
    assert longest_diameter_mm(rod, (10.0, 1.0, 1.0)) == pytest.approx(1.0)


def test_diameter_of_a_diagonal_is_its_length_plus_a_pixel() -> None:
    line = np.zeros((1, 9, 9), bool)
    line[0, range(4), range(4)] = True
    assert longest_diameter_mm(line, (1.0, 1.0, 1.0)) == pytest.approx(3 * 2**0.5 + 1)


def test_diameter_of_random_shapes_equals_the_brute_force_one() -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        shape = generator.random((2, 12, 9)) > 0.8
        points = [np.argwhere(plane) * (0.7, 0.9) for plane in shape]
        brute = max(np.linalg.norm(a - b) for plane in points for a in plane for b in plane)
        assert longest_diameter_mm(shape, (2.0, 0.7, 0.9)) == pytest.approx(brute + 0.8)


def test_diameter_of_nothing_is_zero() -> None:
    assert longest_diameter_mm(np.zeros((2, 4, 4), bool), (1.0, 1.0, 1.0)) == 0.0
