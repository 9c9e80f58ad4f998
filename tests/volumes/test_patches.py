"""Patches of candidates: where their voxels lie, and what is known of them."""

import numpy as np
import pytest

from slicestream.volumes.patches import PATCHES, SCALES_MM, SHAPE, Slab, windowed
from slicestream.volumes.slices import SliceStack, choose_slices, read_slices, write_slices
from slicestream.volumes.volume import SeriesId, Window

EVERYWHERE = np.inf


def ramp(*, slices=12, side=120, spacing_mm=(2.0, 0.8, 0.8), axis=2) -> Slab:
    """Each voxel holds its place along an axis, in mm."""
    index = np.indices((slices, side, side))[axis]
    return Slab(values=index * spacing_mm[axis], slices_mm=np.arange(slices) * spacing_mm[0], spacing_mm=spacing_mm)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("scale", "zoom"), [(0, 1.0), (1, 1.0), (0, 1.25)])
def test_voxels_lie_a_scale_apart_around_the_place(axis, scale, zoom):
    place_mm = np.array([11.3, 48.0, 47.1])
    values, known = ramp(axis=axis).cut_scales(place_mm, reach_mm=EVERYWHERE, zoom=zoom)[scale]
    line = np.moveaxis(values, axis, 0)[:, 4, 12]
    wanted = place_mm[axis] + (np.arange(SHAPE[axis]) - (SHAPE[axis] - 1) / 2) * SCALES_MM[scale] / zoom
    assert known.all()
    assert line == pytest.approx(wanted, abs=0.2)


def test_what_no_slice_shows_is_unknown_and_zero():
    three = ramp(slices=3, side=30, spacing_mm=(1.0, 1.0, 1.0), axis=1)
    (values, known), _ = three.cut_scales(np.array([1.0, 29.0, 15.0]), reach_mm=EVERYWHERE)
    assert known[:, 0, 12].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]  # planes at ±0.5 mm and ±1.5 mm of three slices of 1 mm
    assert known[4, :, 12].tolist() == [1] * 13 + [0] * 11  # the slice ends half a mm below the place
    assert (values[known == 0] == 0).all()


def test_slices_beyond_the_reach_are_not_shown_but_the_nearest_is():
    slab = ramp(slices=20, spacing_mm=(1.0, 0.8, 0.8))
    place = np.array([10.0, 48.0, 48.0])
    assert slab.cut(place, scale_mm=1.0, reach_mm=2.0)[1, :, 12, 12].tolist() == [0, 1, 1, 1, 1, 1, 1, 0]
    assert slab.cut(place, scale_mm=1.0, reach_mm=0.1)[1, :, 12, 12].tolist() == [0, 0, 0, 1, 1, 0, 0, 0]
    thick = ramp(slices=5, spacing_mm=(8.0, 0.8, 0.8))
    assert thick.cut(np.array([16.0, 48.0, 48.0]), scale_mm=1.0, reach_mm=2.0)[1].all()


def test_finer_voxels_are_averaged_so_that_noise_falls():
    noise = np.random.default_rng(0).normal(0, 100, (9, 200, 200))
    slab = Slab(values=noise, slices_mm=np.arange(9.0), spacing_mm=(1.0, 0.5, 0.5))
    near, far = slab.cut_scales(np.array([4.0, 50.0, 50.0]), reach_mm=EVERYWHERE)[:, 0, 3]
    assert 20 < near.std() < 35  # by theory 27
    assert far.std() < 15


def test_gaps_between_slices_are_kept_through_the_file(tmp_path):
    hu = np.zeros((12, 32, 32), np.int16)
    series = SeriesId(patient="0" * 16, series="1" * 16)
    whole = SliceStack.of_series(series, hu=hu, nodule=hu.astype(np.uint8), spacing_mm=(1.0, 1.0, 1.0))
    write_slices(tmp_path / "a.slices", [choose_slices(whole, np.array([4, 5, 9]))])
    (read,) = read_slices(tmp_path / "a.slices")
    assert read.slices_mm.tolist() == [4.0, 5.0, 9.0]
    slab = Slab(values=read.hu, slices_mm=read.slices_mm, spacing_mm=read.spacing_mm)
    assert slab.place_mm(np.array([1.0, 16.0, 16.0]))[0] == 5.0
    known = slab.cut(slab.place_mm(np.array([1.5, 16.0, 16.0])), scale_mm=1.0, reach_mm=EVERYWHERE)[1, :, 12, 12]
    assert known.tolist() == [1, 1, 1, 0, 0, 1, 1, 0]  # planes from 3.5 mm to 10.5 mm


def test_unknown_voxels_are_black_in_every_window():
    patches = np.zeros((1, *PATCHES), np.float32)
    patches[:, :, 1, 4:] = 1
    shown = windowed(patches, Window(low_hu=-1000, high_hu=1000))
    assert shown.shape == patches.shape
    assert (shown[:, :, 0, 4:] == 0.5).all()
    assert (shown[:, :, 0, :4] == 0).all()
    assert (shown[:, :, 1] == patches[:, :, 1]).all()
