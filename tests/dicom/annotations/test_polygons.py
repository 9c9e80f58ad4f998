from __future__ import annotations

import numpy as np
import pytest

from slicestream.dicom.annotations.polygons import crossing, filled

SHAPE = (64, 80)
CENTRE = np.array([30.3, 41.7])


def ring(radius: float, points: int = 720, centre: np.ndarray = CENTRE) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return centre + radius * np.stack((np.sin(angle), np.cos(angle)), axis=1)


def within(radius: float, centre: np.ndarray = CENTRE) -> np.ndarray:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.hypot(rows - centre[0], columns - centre[1]) < radius


def square(low: float, high: float) -> np.ndarray:
    return np.array([[low, low], [low, high], [high, high], [high, low]])


@pytest.mark.parametrize("radius", [1.5, 3.0, 7.25, 20.0])
def test_a_disc_marks_exactly_the_centres_within_its_radius(radius: float) -> None:
    assert np.array_equal(filled([ring(radius, 5000)], SHAPE), within(radius))


def test_an_outline_within_another_is_a_hole_and_one_within_that_is_solid() -> None:
    expected = within(20) & ~within(12) | within(5)
    assert np.array_equal(filled([ring(12), ring(20), ring(5)], SHAPE), expected)


def test_a_keyhole_is_the_same_hole() -> None:
    outer, inner = ring(20), ring(12)[::-1]
    keyhole = np.concatenate((outer, outer[:1], inner[-1:], inner, inner[-1:], outer[:1]))
    assert np.array_equal(filled([keyhole], SHAPE), filled([outer, inner], SHAPE))


def test_centres_on_the_outline_belong_to_the_object() -> None:
    marked = filled([square(10, 14)], SHAPE)
    assert np.argwhere(marked).min(axis=0).tolist() == [10, 10]
    assert marked.sum() == 25
    assert filled([square(10, 14)], SHAPE, rim=False).sum() <= 16
    assert filled([square(9.9, 14.1)], SHAPE).sum() == 25
    assert filled([square(10.1, 13.9)], SHAPE).sum() == 9


def test_an_outline_of_one_point_or_of_a_line_marks_the_centres_on_it() -> None:
    assert np.argwhere(filled([np.array([[5.0, 7.0]])], SHAPE)).tolist() == [[5, 7]]
    assert not filled([np.array([[5.5, 7.0]])], SHAPE).any()
    line = np.array([[5.0, 7.0], [8.0, 10.0]])
    assert np.argwhere(filled([line], SHAPE)).tolist() == [[5, 7], [6, 8], [7, 9], [8, 10]]


def test_outlines_are_cut_at_the_edge_of_the_image() -> None:
    far = np.array([[-1e6, 20.5], [1e6, 20.5], [1e6, 1e6], [-1e6, 1e6]])
    expected = np.zeros(SHAPE, np.bool_)
    expected[:, 21:] = True
    assert np.array_equal(filled([far], SHAPE), expected)


def test_many_edges_are_worked_off_in_parts() -> None:
    comb = np.stack((np.tile([0.4, 60.4], 30_000), np.linspace(1.3, 70.3, 60_000)), axis=1)
    marked = filled([np.concatenate((comb, [[70.0, 70.3], [70.0, 1.3]]))], SHAPE)
    assert marked[62, 30]
    assert not marked[62, 75]


def test_outlines_that_cross_are_told_from_nested_and_separate_ones() -> None:
    away = ring(5, centre=np.array([30.3, 70.0]))
    assert crossing([ring(20), ring(12, centre=CENTRE + 15)], SHAPE)
    assert not crossing([ring(20), ring(12), ring(5), away], SHAPE)
