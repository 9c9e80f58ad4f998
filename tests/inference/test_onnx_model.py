import numpy as np
import pytest

from slicestream.errors import ModelError
from slicestream.inference.model import load_model
from slicestream.volumes.seal import seal, verify
from tiny_model import write_hu_model, write_model_of_another_shape, write_random_model


def test_model_brings_its_window_threshold_and_hash(tmp_path):
    path = write_hu_model(tmp_path / "model.onnx", window_low_hu="-1000", window_high_hu="400", threshold="0.35")
    model = load_model(path, threads=1)
    assert (model.window.low_hu, model.window.high_hu, model.threshold) == (-1000.0, 400.0, 0.35)
    assert (model.architecture, model.content_hash) == ("tiny", verify(path))


def test_model_brings_the_least_score_of_a_candidate_and_an_older_one_asks_for_none(tmp_path):
    asking = write_hu_model(tmp_path / "asking.onnx", min_score="0.62")
    assert load_model(asking, threads=1).min_score == 0.62
    assert load_model(write_hu_model(tmp_path / "older.onnx"), threads=1).min_score == 0.0


def test_model_without_a_threshold_takes_a_half(tmp_path):
    path = tmp_path / "model.onnx"
    write_hu_model(path, threshold="0.5")
    assert load_model(path, threads=1).threshold == 0.5


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"slicestream_format": "2"}, "slicestream_format '2'"),
        ({"window_low_hu": "400"}, "low must be under high"),
        ({"window_low_hu": "wide"}, "could not convert"),
        ({"threshold": "1.5"}, "threshold 1.5"),
        ({"threshold": "half"}, "metadata"),
        ({"min_score": "1"}, "min_score 1"),
        ({"temperature": "0"}, "temperature 0"),
        ({"context": "near"}, "near"),
        ({"context": "1"}, r"input is image f32 .*need image f32 \[\?,3,\?,\?\]"),
    ],
)
def test_metadata_that_cannot_be_used_are_one_clear_line(tmp_path, metadata, message):
    path = write_hu_model(tmp_path / "model.onnx", **metadata)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(path, threads=1)
    assert "\n" not in str(caught.value)


def test_damaged_model_is_refused_by_its_hash(tmp_path):
    path = write_random_model(tmp_path / "model.onnx")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx: content hash .* was sealed in it"):
        load_model(path, threads=1)


def test_network_of_another_architecture_is_refused(tmp_path):
    path = write_model_of_another_shape(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"input is image f32 \[\?,3,224,224\]; need image .* another architecture"):
        load_model(path, threads=1)


@pytest.mark.parametrize(("old", "new"), [(b"MaxPool", b"MaxFool"), (b"\x08\x0a", b"\xff\xff")])
def test_sealed_file_that_the_engine_cannot_read_is_one_line(tmp_path, capfd, old, new):
    path = write_random_model(tmp_path / "model.onnx")
    path.write_bytes(seal(path.read_bytes().replace(old, new, 1)))
    with pytest.raises(ModelError, match=r"model\.onnx: the engine cannot load it \(.+\)\. Fetch") as caught:
        load_model(path, threads=1)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_text("hello")
    with pytest.raises(ModelError, match="no seal inside"):
        load_model(tmp_path / "model.onnx", threads=1)
    with pytest.raises(ModelError, match=r"gone\.onnx"):
        load_model(tmp_path / "gone.onnx", threads=1)


def test_images_that_the_network_cannot_take_are_a_model_error(tmp_path):
    model = load_model(write_random_model(tmp_path / "model.onnx"), threads=1)
    with pytest.raises(ModelError, match=r"model tiny: fails on an input of shape \(1, 1, 7, 7\) .*6, 6") as caught:
        list(model.probabilities([np.zeros((1, 1, 8, 8), np.float32), np.zeros((1, 1, 7, 7), np.float32)]))
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"fails on an input of shape \(1, 2, 8, 8\) .*incompatible"):
        list(model.probabilities([np.zeros((1, 2, 8, 8), np.float32)]))
