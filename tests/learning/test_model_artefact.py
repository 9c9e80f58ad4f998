import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

from slicestream import RESEARCH_ONLY
from slicestream.inference.model import load_model
from slicestream.learning.model import ModelFacts, write_model
from slicestream.learning.networks import TwoPath, UNet, build_unet
from slicestream.volumes.patches import PATCHES
from slicestream.volumes.seal import verify
from slicestream.volumes.volume import Window

FACTS = ModelFacts(window=Window(), spacing_mm=(0.7, 0.8), threshold=0.45, min_score=0.3)


def network() -> UNet:
    torch.manual_seed(0)
    net = build_unet((4, 8, 16))
    torch.nn.init.normal_(net.head.weight)
    net(torch.rand(4, 1, 32, 32))  # batch-norm statistics that are not those of the start
    return net.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model")
    write_model(out, network(), facts=FACTS, card={"training": {"seed": 0}})
    return out


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (3, 1, 48, 64), (5, 1, 80, 32)])
def test_onnx_and_torch_agree_at_every_size(folder: Path, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).random(shape, np.float32)
    model = load_model(folder / "model.onnx", threads=1)
    found = np.concatenate(list(model.probabilities(image[:, None])))
    with torch.no_grad():
        expected = torch.sigmoid(network()(torch.from_numpy(image)))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_model_says_how_it_wants_to_be_fed(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata.pop("content_hash") == verify(folder / "model.onnx")
    assert metadata == {
        "slicestream_format": "1",
        "architecture": "unet-4x3",
        "window_low_hu": "-1300.0",
        "window_high_hu": "300.0",
        "labels": '["background", "lung nodule"]',
        "spacing_mm": "[0.7, 0.8]",
        "threshold": "0.45",
        "min_score": "0.3",
        "version": metadata["version"],
        "notice": RESEARCH_ONLY,
    }


@pytest.mark.parametrize("made", ["folder", "with_second"])
def test_nothing_in_the_model_tells_where_it_was_made(made: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(made)
    content = (folder / "model.onnx").read_bytes()
    for trace in (str(Path.cwd()), str(Path.home()) + "/", "site-packages", ".py", "pkg.torch", 'File "'):
        assert trace.encode() not in content
    model = onnx.load(folder / "model.onnx")
    for part in (model.graph, *model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        assert (part.doc_string, len(part.metadata_props)) == ("", 0)


def test_same_network_gives_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_model(tmp_path, network(), facts=FACTS, card={"training": {"seed": 0}})
    for name in ("model.onnx", "weights.safetensors", "model.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_card_and_weights_belong_to_the_model(folder: Path) -> None:
    card = json.loads((folder / "model.json").read_text())
    assert card["content_hashes"]["model.onnx"] == verify(folder / "model.onnx")
    assert (card["architecture"], card["threshold"], card["spacing_mm"]) == ("unet-4x3", 0.45, [0.7, 0.8])
    weights = load_file(folder / "weights.safetensors")
    for name, tensor in network().state_dict().items():
        assert torch.equal(weights[name], tensor)


def second() -> TwoPath:
    torch.manual_seed(1)
    net = TwoPath((4, 8, 8))
    net(torch.rand(4, *PATCHES))
    return net.eval()


@pytest.fixture(scope="module")
def with_second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two")
    facts = dataclasses.replace(FACTS, reach_mm=4.5)
    write_model(out, network(), facts=facts, card={}, second=second())
    return out


def test_second_network_lies_in_the_same_file_and_the_first_answers_as_before(folder: Path, with_second: Path) -> None:
    image = np.random.default_rng(0).random((1, 1, 48, 32), np.float32)
    patches = np.random.default_rng(1).random((3, *PATCHES), np.float32)
    one, two = (load_model(path / "model.onnx", threads=1) for path in (folder, with_second))
    np.testing.assert_array_equal(*(next(model.probabilities([image])) for model in (one, two)))
    scores = two.score(patches)
    with torch.no_grad():
        expected = torch.sigmoid(second()(torch.from_numpy(patches)))
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_model_of_two_networks_says_how_far_the_second_looks(folder: Path, with_second: Path) -> None:
    model = onnx.load(with_second / "model.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["reach_mm"] == "4.5"
    assert metadata["content_hash"] == verify(with_second / "model.onnx")
    assert json.loads((with_second / "model.json").read_text())["reach_mm"] == 4.5
    assert "reach_mm" not in json.loads((folder / "model.json").read_text())
    ports = {
        port.name: port.type.tensor_type.shape.dim[0].dim_param for port in (*model.graph.input, *model.graph.output)
    }
    assert ports == {"image": "batch", "probability": "batch", "patches": "candidates", "score": "candidates"}
