import numpy as np
import pytest

from slicestream.inference.model import load_model
from slicestream.inference.predict import predict
from tiny_model import write_hu_model, write_random_model

HU = np.random.default_rng(0).integers(-1100, 400, (7, 45, 52)).astype(np.int16)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return load_model(write_random_model(tmp_path_factory.mktemp("models") / "model.onnx"), threads=2)


def test_probability_of_a_known_network_is_1_over_its_threshold_and_0_under_it(tmp_path):
    model = load_model(write_hu_model(tmp_path / "model.onnx", over_hu=-100.0), threads=1)
    probability = predict(model, HU, batch_size=3)
    assert probability.shape == HU.shape
    assert (probability[HU > -90] > 65000).all()
    assert (probability[HU < -110] < 500).all()


@pytest.mark.parametrize("flips", [False, True])
def test_batch_size_changes_no_bit(network, flips):
    one, *others = (predict(network, HU, batch_size=n, flips=flips) for n in (1, 3, 7, 8))
    for other in others:
        assert np.array_equal(one, other)


def test_number_of_threads_changes_no_bit(network, tmp_path):
    single = load_model(write_random_model(tmp_path / "model.onnx"), threads=1)
    assert np.array_equal(predict(single, HU, batch_size=3), predict(network, HU, batch_size=3))


def test_answer_over_flips_is_the_mean_of_the_four(network):
    hu = HU[:, :32, :48]  # no padding, so that mirroring the input is all that differs
    wanted = np.zeros(hu.shape)
    for axes in ((), (1,), (2,), (1, 2)):
        wanted += np.flip(predict(network, np.flip(hu, axes).copy(), batch_size=7), axes) / 4
    assert np.abs(predict(network, hu, batch_size=7, flips=True) - wanted).max() <= 1.0


def test_padding_is_cut_off_again_and_is_air(network):
    padded = np.full((7, 48, 64), -1024, np.int16)
    padded[:, :45, :52] = HU
    assert np.array_equal(predict(network, HU, batch_size=2), predict(network, padded, batch_size=2)[:, :45, :52])


def test_progress_counts_slices(network):
    told = []
    predict(network, HU, batch_size=3, progress=told.append)
    assert told == [3, 6, 7]
