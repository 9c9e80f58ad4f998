"""Small models whose answers are known, in the form that `slicestream train` writes. No training, no torch."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from slicestream.volumes.patches import PATCHES
from slicestream.volumes.seal import UNSEALED, seal

METADATA = {
    "slicestream_format": "1",
    "architecture": "tiny",
    "window_low_hu": "-1300",
    "window_high_hu": "300",
    "labels": '["background", "lung nodule"]',
    "spacing_mm": "[0.7, 0.7]",
    "threshold": "0.5",
    "version": "0.1.0",
    "notice": "For research only.",
    "content_hash": UNSEALED,
}


def write_hu_model(path: Path, *, over_hu: float = -100.0, **metadata: str) -> Path:
    """Write a network that says 1 where HU is over `over_hu` and 0 elsewhere, but for 10 HU around it."""
    return _write(path, *_over(over_hu), metadata)


def _over(over_hu: float) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    steepness = 1000.0
    weight = np.array([[[[steepness]]]], np.float32)
    bias = np.array([-steepness * (over_hu + 1300) / 1600], np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "weight", "bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
    ]
    return nodes, {"weight": weight, "bias": bias}


def write_two_path_model(path: Path, *, over_hu: float = -100.0, **metadata: str) -> Path:
    """Write the same network with a second one beside it, whose score is 1 less the mean of the near patch's window."""
    nodes, weights = _over(over_hu)
    nodes += [
        helper.make_node("Gather", ["patches", "first"], ["near"], axis=1),
        helper.make_node("Gather", ["near", "first"], ["hu"], axis=1),
        helper.make_node("ReduceMean", ["hu", "axes"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["one", "mean"], ["score"]),
    ]
    weights |= {"first": np.array(0), "axes": np.array([1, 2, 3]), "one": np.array(1, np.float32)}
    more = {"patches": ["N", *PATCHES]}, {"score": ["N"]}
    return _write(path, nodes, weights, {"reach_mm": "5.0", **metadata}, more=more)


def write_random_model(path: Path, *, channels: int = 16, seed: int = 0) -> Path:
    """Write a network of random weights: two convolutions, a halving and a doubling between them."""
    generator = np.random.default_rng(seed)
    weights = {
        "w1": generator.normal(0, 0.5, (channels, 1, 3, 3)).astype(np.float32),
        "w2": generator.normal(0, 0.1, (channels, channels, 3, 3)).astype(np.float32),
        "w3": generator.normal(0, 1.0, (1, channels, 3, 3)).astype(np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "none": np.array([], np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["c", "w2"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Resize", ["e", "none", "scales"], ["f"], mode="nearest"),
        helper.make_node("Conv", ["f", "w3"], ["g"], pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["g"], ["probability"]),
    ]
    return _write(path, nodes, weights, {})


def write_model_of_another_shape(path: Path) -> Path:
    """Write a sealed classifier: image (B, 3, 224, 224) to scores (B, 2)."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["a"]),
        helper.make_node("Flatten", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["probability"]),
    ]
    weights = {"w": np.ones((3, 2), np.float32)}
    return _write(path, nodes, weights, {}, shapes=(["B", 3, 224, 224], ["B", 2]))


def _write(path, nodes, weights, metadata, *, shapes=(["B", 1, "H", "W"], ["B", 1, "H", "W"]), more=({}, {})) -> Path:
    ports = {"image": shapes[0], **more[0]}, {"probability": shapes[1], **more[1]}
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side.items()]
        for side in ports
    )
    values = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {**METADATA, **metadata})
    onnx.checker.check_model(model)
    path.write_bytes(seal(model.SerializeToString()))
    return path
