"""The model artefact: one sealed ONNX file with its weights inside, the same weights as safetensors, and its card."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx.compose
import torch
from safetensors.torch import save
from torch import Tensor, nn

from slicestream import RESEARCH_ONLY, __version__
from slicestream.learning.networks import TwoPath, UNet, architecture_name
from slicestream.volumes.files import atomic_path, write_text
from slicestream.volumes.patches import PATCHES
from slicestream.volumes.seal import KEY, UNSEALED, seal, verify
from slicestream.volumes.volume import Window

FORMAT = "1"
LABELS = ("background", "lung nodule")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """What a user of the model must know: window, spacing it was trained at (row, column), threshold, least score,
    temperature of the scores.

    How many neighbours on either side it sees, its channels tell. `reach_mm`: how far along the slices its second
    network looks; None where it has none.
    """

    window: Window
    spacing_mm: tuple[float, float]
    threshold: float
    min_score: float = 0.0
    temperature: float = 1.0
    reach_mm: float | None = None


class _WithSigmoid(nn.Module):
    def __init__(self, network: UNet | TwoPath) -> None:
        super().__init__()
        self.network = network

    def forward(self, shown: Tensor) -> Tensor:
        """What the network is shown, to probabilities in the shape of its logits."""
        return torch.sigmoid(self.network(shown))


def write_model(
    out: Path, network: UNet, *, facts: ModelFacts, card: Mapping[str, Any], second: TwoPath | None = None
) -> dict[str, str]:
    """Write model.onnx, weights.safetensors and model.json; return the content hash of each. Raises OutputError.

    A `second` network goes into the same file. The weights beside it are of `network` alone.
    """
    network = _plain(network)
    onnx_path, weights_path, card_path = out / "model.onnx", out / "weights.safetensors", out / "model.json"
    with atomic_path(onnx_path) as partial:
        partial.write_bytes(seal(_onnx_bytes(network, facts, second)))
    weights = save({name: tensor.contiguous() for name, tensor in sorted(network.state_dict().items())})
    with atomic_path(weights_path) as partial:
        partial.write_bytes(weights)
    hashes = {onnx_path.name: verify(onnx_path), weights_path.name: hashlib.sha256(weights).hexdigest()}
    full = {**_facts_json(network, facts), **card, "content_hashes": dict(hashes)}
    text = json.dumps(full, indent=1, sort_keys=True) + "\n"
    write_text(card_path, text)
    return {**hashes, card_path.name: hashlib.sha256(text.encode()).hexdigest()}


def _plain(network: UNet) -> UNet:
    """Return a copy on the CPU in PyTorch's usual memory order: the file must not tell where training ran."""
    copy = UNet(network.widths, channels=network.channels)
    copy.load_state_dict({name: tensor.cpu() for name, tensor in network.state_dict().items()})
    return copy.eval().requires_grad_(False)


def _facts_json(network: UNet, facts: ModelFacts) -> dict[str, Any]:
    document = {
        "format": FORMAT,
        "architecture": architecture_name(network.widths, channels=network.channels),
        "context": network.channels // 2,
        "window": {"low_hu": facts.window.low_hu, "high_hu": facts.window.high_hu},
        "spacing_mm": list(facts.spacing_mm),
        "labels": list(LABELS),
        "threshold": facts.threshold,
        "min_score": facts.min_score,
        "temperature": facts.temperature,
        "version": __version__,
        "notice": RESEARCH_ONLY,
    }
    return document if facts.reach_mm is None else {**document, "reach_mm": facts.reach_mm}


def _onnx_bytes(network: UNet, facts: ModelFacts, second: TwoPath | None) -> bytes:
    """Return an unsealed model: input "image" (B, C, H, W), output "probability" (B, 1, H, W); B, H and W are free.

    With a `second` network, "patches" (N, S, K, D, H, W) and "score" (N,) beside them, in one graph of two parts.
    """
    model = _exported(network)
    if second is not None:
        parted = onnx.compose.add_prefix(_exported_second(second), "second_", rename_inputs=False, rename_outputs=False)
        model = onnx.compose.merge_models(model, parted, io_map=[])
    _strip(model)
    metadata = {
        "slicestream_format": FORMAT,
        "architecture": architecture_name(network.widths, channels=network.channels),
        "window_low_hu": repr(float(facts.window.low_hu)),
        "window_high_hu": repr(float(facts.window.high_hu)),
        "labels": json.dumps(LABELS),
        "spacing_mm": json.dumps(facts.spacing_mm),
        "threshold": json.dumps(facts.threshold),
        "min_score": json.dumps(facts.min_score),
        "version": __version__,
        "notice": RESEARCH_ONLY,
        KEY: UNSEALED,
    }
    # what is as ever is not said: such a model stays what older versions read
    if network.channels > 1:
        metadata["context"] = str(network.channels // 2)
    if facts.temperature != 1:
        metadata["temperature"] = json.dumps(facts.temperature)
    if facts.reach_mm is not None:
        metadata["reach_mm"] = json.dumps(facts.reach_mm)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _exported(network: UNet) -> onnx.ModelProto:
    side = 2 * network.multiple
    example = torch.zeros((2, network.channels, side, side + network.multiple))
    rows, columns = (network.multiple * torch.export.Dim(f"{axis}_blocks") for axis in ("row", "column"))
    free = {0: torch.export.Dim("batch"), 2: rows, 3: columns}
    return _export(network, example, ports=("image", "probability"), free=free)


def _exported_second(network: TwoPath) -> onnx.ModelProto:
    free = {0: torch.export.Dim("candidates")}
    return _export(network.cpu(), torch.zeros((2, *PATCHES)), ports=("patches", "score"), free=free)


def _export(
    network: UNet | TwoPath, example: Tensor, *, ports: tuple[str, str], free: Mapping[int, Any]
) -> onnx.ModelProto:
    with warnings.catch_warnings(action="ignore"):  # the exporter's own deprecations, which no user can mend
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            _WithSigmoid(network).eval(),
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[ports[0]],
            output_names=[ports[1]],
            dynamic_shapes=(dict(free),),
        )
    assert program is not None
    return program.model_proto


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter says about our source files, and name the free sizes."""
    graph = model.graph
    model.doc_string = graph.doc_string = ""
    graph.name = "slicestream"
    free = {"image": {0: "batch", 2: "rows", 3: "columns"}, "patches": {0: "candidates"}}
    free |= {"probability": free["image"], "score": free["patches"]}
    for value in (*graph.input, *graph.output):
        for axis, name in free[value.name].items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    del graph.value_info[:]
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *model.functions):
        part.doc_string = ""
        del part.metadata_props[:]
