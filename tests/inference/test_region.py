"""Where the network looks in a drawn thorax."""

import numpy as np

from drawn_thorax import thorax
from slicestream.inference.region import MARGIN_PX, NEAR_MM, around, whole
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.lungs import Lungs, no_lungs

GEOMETRY = Geometry(shape=(40, 300, 251), spacing_mm=(2.0, 1.0, 1.0))


def lungs_at(*voxels, steps=(1, 2, 3)):
    """Return lungs on a coarse grid, inside where these voxels lie."""
    inside = np.zeros([-(-n // step) for n, step in zip(GEOMETRY.shape, steps, strict=True)], bool)
    for voxel in voxels:
        inside[tuple(n // step for n, step in zip(voxel, steps, strict=True))] = True
    return Lungs(inside=inside, steps=steps, volume_ml=1.0)


def test_without_a_lung_mask_all_of_every_slice_is_looked_at():
    wanted = [(slice(0, 304), slice(0, 256))] * 40
    assert around(no_lungs("a crop"), GEOMETRY) == whole(GEOMETRY.shape) == wanted


def test_window_is_the_lung_of_nearby_slices_with_its_margin_on_a_grid_of_16():
    windows = around(lungs_at((20, 100, 90), (20, 131, 120)), GEOMETRY)
    near = round(NEAR_MM / 2.0)
    assert [k for k, window in enumerate(windows) if window] == list(range(20 - near, 20 + near + 1))
    assert MARGIN_PX == 48
    # rows 100 to 131: 52 to 180; columns 90 to 122: 42 to 171
    assert windows[20] == windows[20 + near] == (slice(48, 192), slice(32, 176))


def test_window_ends_where_the_filled_slice_does():
    assert around(lungs_at((0, 2, 3), (0, 299, 250)), GEOMETRY)[0] == (slice(0, 304), slice(0, 256))


def test_all_lung_of_a_thorax_is_seen_with_its_margin_and_slices_far_from_it_are_not():
    drawn = thorax()
    windows = around(Lungs(inside=drawn.lung, volume_ml=1.0), drawn.geometry)
    for plane, window in zip(drawn.lung, windows, strict=True):
        if not plane.any():
            continue
        for there, span in zip((plane.any(axis=1), plane.any(axis=0)), window, strict=True):
            first, last = np.flatnonzero(there)[[0, -1]]
            assert span.start <= max(0, first - MARGIN_PX)
            assert span.stop > min(len(there) - 1, last + MARGIN_PX)
            assert span.start % 16 == span.stop % 16 == 0
    assert any(window is None for window in windows)
