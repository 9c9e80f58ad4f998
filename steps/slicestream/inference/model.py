"""A model.onnx, verified and ready to run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicestream.errors import ModelError
from slicestream.inference.engine import EngineError, Network, metadata_of, part_of, read_graph, reason, shown
from slicestream.volumes import seal
from slicestream.volumes.patches import PATCHES
from slicestream.volumes.volume import Window

FORMAT = "1"
FIRST, SECOND = ("image", "probability"), ("patches", "score")  # input and output of each network


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A network and what its metadata say of it.

    Attributes
    ----------
    window : HU shown to the network as 0 to 1
    threshold : probability from which a voxel counts as nodule, chosen on the validation side
    min_score : score from which a candidate is kept, chosen there too; 0 where the model says none
    temperature : what the logits of scores are divided by, chosen there too; 1 where the model says none
    context : neighbouring slices on either side that it sees as further channels
    reach_mm : how far along the slices its second network looks, which scores candidates anew; None where it has none
    content_hash : what masks made with it are bound to
    network, second : ready to run; the second one computes in float32 everywhere
    """

    architecture: str
    window: Window
    threshold: float
    min_score: float
    temperature: float
    context: int
    reach_mm: float | None
    content_hash: str
    network: Network = field(repr=False)
    second: Network | None = field(repr=False)

    def probabilities(self, images: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield, in order, the probabilities (1, 1, H, W) of windowed images (1, 2 * context + 1, H, W).

        H and W are multiples of 16 and may differ from image to image. Raises ModelError.
        """
        with self._answering():
            for image_BCHW, answer_B1HW in self.network.answers(images):
                if answer_B1HW.shape != image_BCHW[:, :1].shape:
                    raise EngineError(f"an input of shape {image_BCHW.shape} (answer of shape {answer_B1HW.shape})")
                yield answer_B1HW

    def score(self, patches_NSKDHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the second network says of windowed patches, (N,). Raises ModelError."""
        assert self.second is not None
        with self._answering():
            ((_, scores_N),) = self.second.answers([patches_NSKDHW])
            if scores_N.shape != patches_NSKDHW.shape[:1]:
                raise EngineError(f"an input of shape {patches_NSKDHW.shape} (answer of shape {scores_N.shape})")
        return scores_N

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except EngineError as error:
            raise ModelError(
                f"model {self.architecture}: fails on {error}. Lower --batch-size if memory is short, else train the "
                "model again."
            ) from error


def load_model(path: Path, *, threads: int, at_once: int = 1, precision: str = "float32") -> Model:
    """Verify and load, for so many slices at once. Raises ModelError where the file is damaged or of another make."""
    sealed = seal.verify(path)
    with _loading(path):
        graph = read_graph(path)
        metadata = metadata_of(graph)
    _check_ports(path, graph, metadata.get("context", "0"), reduces="reach_mm" in metadata)
    try:
        settings = _settings(metadata)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: metadata {error} missing or not usable; need a model of format {FORMAT} that "
            "`slicestream train` wrote. Train it again with this version."
        ) from error
    with _loading(path):
        network = Network(part_of(graph, *FIRST), threads=threads, at_once=at_once, precision=precision)
        second = None
        if settings["reach_mm"] is not None:
            second = Network(part_of(graph, *SECOND), threads=threads, at_once=1, precision="float32")
    return Model(content_hash=sealed, network=network, second=second, **settings)


@contextmanager
def _loading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the engine's own exception types share no base
        raise ModelError(f"{path}: the engine cannot load it ({reason(error)}). Fetch or train it again.") from error


def _settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    if metadata["slicestream_format"] != FORMAT:
        raise ValueError(f"slicestream_format '{metadata['slicestream_format'][:20]}'")
    threshold = float(json.loads(metadata.get("threshold", "0.5")))
    if not 0 < threshold < 1:
        raise ValueError(f"threshold {threshold}")
    min_score = float(json.loads(metadata.get("min_score", "0")))
    if not 0 <= min_score < 1:
        raise ValueError(f"min_score {min_score}")
    temperature = float(json.loads(metadata.get("temperature", "1")))
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature {temperature}")
    reach_mm = json.loads(metadata.get("reach_mm", "null"))
    if reach_mm is not None and not 0 <= float(reach_mm) < math.inf:
        raise ValueError(f"reach_mm {reach_mm}")
    window = Window(low_hu=float(metadata["window_low_hu"]), high_hu=float(metadata["window_high_hu"]))
    return {
        "architecture": metadata["architecture"],
        "window": window,
        "threshold": threshold,
        "min_score": min_score,
        "temperature": temperature,
        "context": int(metadata.get("context", "0")),
        "reach_mm": None if reach_mm is None else float(reach_mm),
    }


def _check_ports(path: Path, graph: Any, context: str, *, reduces: bool) -> None:
    """Raise ModelError unless the ports are those of a segmentation network and, where one `reduces`, of the second."""
    channels = 2 * int(context) + 1 if context.isdecimal() else 1
    inputs: dict[str, list[int | None]] = {"image": [None, channels, None, None]}
    outputs: dict[str, list[int | None]] = {"probability": [None, 1, None, None]}
    if reduces:
        inputs["patches"], outputs["score"] = [None, *PATCHES], [None]
    for role, wanted, ports in (("input", inputs, graph.inputs), ("output", outputs, graph.outputs)):
        needed = {f"{name} f32 {_sizes(shape)}" for name, shape in wanted.items()}
        found = {shown(port) for port in ports}
        if found != needed:
            raise ModelError(
                f"{path}: {role} is {', '.join(sorted(found))}; need {', '.join(sorted(needed))}, ? being free. "
                "This network is of another architecture: give a model.onnx of `slicestream train`."
            )


def _sizes(shape: list[int | None]) -> str:
    return f"[{','.join('?' if size is None else str(size) for size in shape)}]"
