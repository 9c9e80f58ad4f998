"""Candidates scored anew by a model's second network."""

import numpy as np
import pytest

from made import ball, volume
from slicestream.errors import ModelError
from slicestream.inference.model import load_model
from slicestream.inference.rescore import rescorer
from slicestream.volumes.patches import PATCHES
from tiny_model import write_hu_model, write_two_path_model

SPACING_MM = (2.0, 1.0, 1.0)
SHAPE = (12, 60, 80)
CENTRES = np.array([(6.0, 20.0, 20.0), (6.0, 40.0, 60.0)])


@pytest.fixture
def model(tmp_path):
    return load_model(write_two_path_model(tmp_path / "model.onnx"), threads=1)


@pytest.fixture
def balls():
    """Two balls of 300 HU, 4 and 8 mm, in -1300 HU: 1 and 0 in the window."""
    hu = np.full(SHAPE, -1300, np.int16)
    for centre, radius_mm in zip(CENTRES, (2.0, 4.0), strict=True):
        hu[ball(SHAPE, centre, radius_mm, SPACING_MM)] = 300
    return volume(hu, spacing_mm=SPACING_MM)


def test_score_is_what_the_second_network_says_of_the_patch_around_a_candidate(model, balls):
    rescore = rescorer(model, balls)
    assert rescore is not None
    voxels = np.prod(PATCHES[2:])
    volumes = np.array([4 / 3 * np.pi * radius**3 for radius in (2.0, 4.0)])  # voxels of the patch are 1 mm³
    assert rescore(CENTRES) == pytest.approx(1 - volumes / voxels, abs=0.01)


def test_score_hangs_on_no_other_candidate(model, balls):
    rescore = rescorer(model, balls)
    alone, many = rescore(CENTRES[:1]), rescore(np.concatenate([CENTRES] * 7))
    assert len(many) == 14
    assert (many[::2] == alone).all()


def test_slices_further_than_the_model_looks_change_nothing(tmp_path, model, balls):
    near = rescorer(model, balls)(CENTRES)
    balls.hu[[0, 1, 2, 10, 11]] = 300  # 8 mm and more from the candidates; the model looks 5 mm far
    assert (rescorer(model, balls)(CENTRES) == near).all()
    farther = load_model(write_two_path_model(tmp_path / "farther.onnx", reach_mm="9"), threads=1)
    balls.hu[[2, 3, 4, 8, 9]] = 300
    assert (rescorer(farther, balls)(CENTRES) < near).all()


def test_model_of_one_network_rescores_nothing(tmp_path, balls):
    assert rescorer(load_model(write_hu_model(tmp_path / "one.onnx"), threads=1), balls) is None


def test_probabilities_of_both_kinds_of_model_are_equal(tmp_path, model):
    one = load_model(write_hu_model(tmp_path / "one.onnx"), threads=1)
    image = np.random.default_rng(0).random((1, 1, 32, 48), np.float32)
    assert np.array_equal(*(next(each.probabilities([image])) for each in (model, one)))


@pytest.mark.parametrize("reach", ["-1", "Infinity", '"far"'])
def test_reach_that_cannot_be_is_one_clear_line(tmp_path, reach):
    path = write_two_path_model(tmp_path / "model.onnx", reach_mm=reach)
    with pytest.raises(ModelError, match=r"metadata .* missing or not usable") as caught:
        load_model(path, threads=1)
    assert "\n" not in str(caught.value)


def test_reach_without_a_second_network_is_another_architecture(tmp_path):
    path = write_hu_model(tmp_path / "model.onnx", reach_mm="5")
    with pytest.raises(ModelError, match=r"input is image .*; need image .*, patches .* another architecture"):
        load_model(path, threads=1)


def test_patches_that_the_network_cannot_take_are_a_model_error(model):
    with pytest.raises(ModelError, match=r"model tiny: fails on an input of shape \(2, 2, 2, 8, 24\)"):
        model.score(np.zeros((2, 2, 2, 8, 24), np.float32))
