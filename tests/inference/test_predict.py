from pathlib import Path

import numpy as np
import pytest

from slicestream.inference.model import load_model
from slicestream.inference.predict import predict
from slicestream.inference.region import whole
from tiny_model import write_hu_model, write_random_model

HU = np.random.default_rng(0).integers(-1100, 400, (7, 45, 52)).astype(np.int16)
ALL = whole(HU.shape)
CPU_HAS_BFLOAT16 = bool({"avx512_bf16", "amx_bf16"} & set(Path("/proc/cpuinfo").read_text().split()))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return load_model(write_random_model(tmp_path_factory.mktemp("models") / "model.onnx"), threads=2, at_once=2)


def test_probability_of_a_known_network_is_1_over_its_threshold_and_0_under_it(tmp_path):
    model = load_model(write_hu_model(tmp_path / "model.onnx", over_hu=-100.0), threads=1)
    probability = predict(model, HU, ALL)
    assert probability.shape == HU.shape
    assert (probability[HU > -90] > 65000).all()
    assert (probability[HU < -110] < 500).all()


@pytest.mark.parametrize("precision", ["auto", "float32"])
@pytest.mark.parametrize("flips", [False, True])
def test_slices_at_once_and_threads_change_no_bit(tmp_path, flips, precision):
    path = write_random_model(tmp_path / "model.onnx")
    wanted, *others = (
        predict(load_model(path, threads=threads, at_once=at_once, precision=precision), HU, ALL, flips=flips)
        for threads, at_once in ((1, 1), (2, 1), (2, 2), (1, 8), (2, 8))
    )
    for other in others:
        assert np.array_equal(wanted, other)


def test_float32_is_kept_to_and_auto_is_near_it(tmp_path):
    path = write_random_model(tmp_path / "model.onnx")
    auto, exact = (load_model(path, threads=1, precision=precision) for precision in ("auto", "float32"))
    assert exact.network.precision == "float32"
    assert auto.network.precision == ("bfloat16" if CPU_HAS_BFLOAT16 else "float32")
    difference = np.abs(predict(auto, HU, ALL).astype(np.int32) - predict(exact, HU, ALL))
    assert (difference.max() > 0) == CPU_HAS_BFLOAT16
    assert difference.max() < 0.05 * 65535


def test_a_slice_is_looked_at_in_its_window_alone(network):
    windows = [None, *whole(HU.shape)[1:]]
    windows[3] = (slice(16, 48), slice(0, 32))
    probability, all_of_it = predict(network, HU, windows), predict(network, HU, ALL)
    assert not probability[0].any()
    assert not probability[3, :16].any()
    assert not probability[3, :, 32:].any()
    # the network sees under 8 pixels around; it halves, and 16 keeps the grid of its halves
    assert np.array_equal(probability[3, 24:, :24], all_of_it[3, 24:, :24])
    assert np.array_equal(np.delete(probability, (0, 3), axis=0), np.delete(all_of_it, (0, 3), axis=0))


def test_answer_over_flips_is_the_mean_of_the_four(network):
    hu = HU[:, :32, :48]  # no padding, so that mirroring the input is all that differs
    wanted = np.zeros(hu.shape)
    for axes in ((), (1,), (2,), (1, 2)):
        wanted += np.flip(predict(network, np.flip(hu, axes).copy(), whole(hu.shape)), axes) / 4
    assert np.abs(predict(network, hu, whole(hu.shape), flips=True) - wanted).max() <= 1.0


def test_padding_is_cut_off_again_and_is_air(network):
    padded = np.full((7, 48, 64), -1024, np.int16)
    padded[:, :45, :52] = HU
    assert np.array_equal(predict(network, HU, ALL), predict(network, padded, whole(padded.shape))[:, :45, :52])


def test_progress_counts_slices(network):
    told = []
    windows = whole(HU.shape)
    windows[0] = windows[5] = windows[6] = None
    predict(network, HU, windows, progress=told.append)
    assert told == [2, 3, 4, 5, 7]
