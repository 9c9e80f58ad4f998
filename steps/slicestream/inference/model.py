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
    content_hash : what masks made with it are bound to
    """

    architecture: str
    window: Window
    threshold: float
    min_score: float
    temperature: float
    context: int
    content_hash: str
    session: Any = field(repr=False)

    def probability(self, image_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities (B, 1, H, W) of windowed images (B, 2 * context + 1, H, W). Raises ModelError.

        H and W are multiples of 16.
        """
        try:
            answer = np.asarray(self.session.run(["probability"], {"image": image_BCHW})[0], np.float32)
            if answer.shape != image_BCHW[:, :1].shape or not np.isfinite(answer).all():
                raise ValueError(f"answer of shape {answer.shape}, finite: {bool(np.isfinite(answer).all())}")
        except Exception as error:  # the engine's own exception types share no base
            raise ModelError(
                f"model {self.architecture}: fails on images of shape {image_BCHW.shape} ({_first_line(error)}). "
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
    _check_ports(path, session, metadata.get("context", "0"))
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
    window = Window(low_hu=float(metadata["window_low_hu"]), high_hu=float(metadata["window_high_hu"]))
    return {
        "architecture": metadata["architecture"],
        "window": window,
        "threshold": threshold,
        "min_score": min_score,
        "temperature": temperature,
        "context": int(metadata.get("context", "0")),
    }


def _check_ports(path: Path, session: Any, context: str) -> None:
    channels = 2 * int(context) + 1 if context.isdecimal() else 1
    for role, name, ports, wanted in (
        ("input", "image", session.get_inputs(), channels),
        ("output", "probability", session.get_outputs(), 1),
    ):
        found = [(port.name, port.type, port.shape) for port in ports]
        fits = len(found) == 1 and found[0][:2] == (name, "tensor(float)") and len(found[0][2]) == 4
        # all but the channel may vary
        if not fits or found[0][2][1] != wanted or any(isinstance(found[0][2][axis], int) for axis in (0, 2, 3)):
            listed = ", ".join(f"{n} {t} {s}" for n, t, s in found)
            raise ModelError(
                f"{path}: {role} is {listed}; need '{name}' tensor(float) (B, {wanted}, H, W) with B, H and W free. "
                "This network is of another architecture: give a model.onnx of `slicestream train`."
            )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
