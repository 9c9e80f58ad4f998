"""A model.onnx, verified and ready to run. Why ONNX Runtime: docs/decisions/0002-inference-engine.md."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from slicestream.errors import ModelError
from slicestream.volumes import seal
from slicestream.volumes.patches import PATCHES
from slicestream.volumes.volume import Window

FORMAT = "1"
MULTIPLE = 16  # four halvings in the network: rows and columns must divide by it
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


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
    """

    architecture: str
    window: Window
    threshold: float
    min_score: float
    temperature: float
    context: int
    reach_mm: float | None
    content_hash: str
    session: Any = field(repr=False)

    def probability(self, image_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities (B, 1, H, W) of windowed images (B, 2 * context + 1, H, W). Raises ModelError.

        H and W are multiples of 16.
        """
        ports = {"image": image_BCHW}
        if self.reach_mm is not None:
            ports["patches"] = np.zeros((0, *PATCHES), np.float32)  # one graph, two networks: none for the other
        return self._run("probability", ports, image_BCHW[:, :1].shape)

    def score(self, patches_NSKDHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the second network says of windowed patches, (N,). Raises ModelError."""
        none = np.zeros((0, 2 * self.context + 1, MULTIPLE, MULTIPLE), np.float32)
        return self._run("score", {"image": none, "patches": patches_NSKDHW}, patches_NSKDHW.shape[:1])

    def _run(
        self, output: str, ports: Mapping[str, NDArray[np.float32]], shape: tuple[int, ...]
    ) -> NDArray[np.float32]:
        try:
            answer = np.asarray(self.session.run([output], ports)[0], np.float32)
            if answer.shape != shape or not np.isfinite(answer).all():
                raise ValueError(f"answer of shape {answer.shape}, finite: {bool(np.isfinite(answer).all())}")
        except Exception as error:  # the engine's own exception types share no base
            given = f"images of shape {ports['image'].shape}"
            if not ports["image"].size:
                given = f"patches of shape {ports['patches'].shape}"
            raise ModelError(
                f"model {self.architecture}: fails on {given} ({_first_line(error)}). "
                "Lower --batch-size if memory is short, else train the model again."
            ) from error
        return answer


def available_cores() -> int:
    """Return the cores this process may use: its affinity and, in a container, its CPU quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        return cores


def load_model(path: Path, *, threads: int) -> Model:
    """Verify and load. Raises ModelError where the file is damaged or of another make."""
    sealed = seal.verify(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what fails is raised; its log lines would double the one clear line
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the engine's own exception types share no base
        raise ModelError(
            f"{path}: the engine cannot load it ({_first_line(error)}). Fetch or train it again."
        ) from error
    metadata = session.get_modelmeta().custom_metadata_map
    _check_ports(path, session, metadata.get("context", "0"), reduces="reach_mm" in metadata)
    try:
        return Model(content_hash=sealed, session=session, **_settings(metadata))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: metadata {error} missing or not usable; need a model of format {FORMAT} that "
            "`slicestream train` wrote. Train it again with this version."
        ) from error


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


def _check_ports(path: Path, session: Any, context: str, *, reduces: bool) -> None:
    """Raise ModelError unless the ports are those of a segmentation network and, where one `reduces`, of the second."""
    channels = 2 * int(context) + 1 if context.isdecimal() else 1
    inputs: dict[str, tuple[int | None, ...]] = {"image": (None, channels, None, None)}
    outputs: dict[str, tuple[int | None, ...]] = {"probability": (None, 1, None, None)}
    if reduces:
        inputs["patches"], outputs["score"] = (None, *PATCHES), (None,)
    for role, wanted, ports in (("input", inputs, session.get_inputs()), ("output", outputs, session.get_outputs())):
        found = {port.name: tuple(n if isinstance(n, int) else None for n in port.shape) for port in ports}
        if found != wanted or any(port.type != "tensor(float)" for port in ports):
            listed = ", ".join(f"{port.name} {port.type} {port.shape}" for port in ports)
            needed = ", ".join(f"'{name}' tensor(float) {_shape(shape)}" for name, shape in wanted.items())
            raise ModelError(
                f"{path}: {role} is {listed}; need {needed}. "
                "This network is of another architecture: give a model.onnx of `slicestream train`."
            )


def _shape(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if n is None else str(n) for n in shape)})"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
