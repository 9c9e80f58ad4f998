"""From the start of a process to its first mask, and what must be installed for it."""

from __future__ import annotations

import sys
from importlib.metadata import requires
from pathlib import Path

from harness import CONTENDERS, PEERS, ROOT, Comparison, Contender, faster, less
from inputs import phantom_scan, trained_model

OURS, TORCH = "slicestream infer", "PyTorch"
WIDTH = {"trial": 8, "bench": 16, "full": 16}
MATRIX = {"trial": 128, "bench": 512, "full": 512}
EPOCHS = {"trial": 40, "bench": 60, "full": 60}  # as for inference: the same model
SLICES = 4


def comparisons(size: str, inputs: Path) -> list[Comparison]:
    """Return one of time and one of size."""
    width, matrix = WIDTH[size], MATRIX[size]
    model = trained_model(inputs, matrix, width, EPOCHS[size])
    scan = phantom_scan(inputs, SLICES, matrix)
    ours = [sys.executable, "-m", "slicestream", "infer", "--model", model / "model.onnx"]
    peer = [PEERS / "python", CONTENDERS / "torch_first_mask.py", model / "weights.safetensors", scan / "hu.npy"]
    time = Comparison(
        name="start",
        how=f"A whole process: start, load, U-Net {width}, {SLICES} slices of {matrix} × {matrix}, write the mask. "
        "Processes on this machine, without a container engine: what an engine adds is not in it.",
        unit="s",
        contenders=[
            Contender(
                name=OURS,
                command=[*ours, "--volumes", scan / "scan.volume", "--out", "{work}"],
                makes=("*.mask", 1),
                libraries=("slicestream", "openvino"),
            ),
            Contender(name=TORCH, command=[*peer, "0.5", "{work}"], makes=("mask.npy", 1), libraries=("torch",)),
        ],
        claims=[faster("start to first mask", OURS, TORCH, 2)],
    )
    return [time, _sizes()]


def _sizes() -> Comparison:
    script, sources, slim = CONTENDERS / "installed_size.py", ROOT / "steps" / "slicestream", ROOT / "containers/slim"
    extra = [line for line in requires("slicestream") or () if "extra" not in line or 'extra == "inference"' in line]
    ours = [line.split(";")[0].strip() for line in extra]
    return Comparison(
        name="start-size",
        how=f"Installed files of {', '.join(ours)} and of torch, numpy, safetensors, with all that each needs, less "
        "what our images leave out (containers/slim, on both sides); ours with the whole of SliceStream. Python itself "
        "and the base image, the same in both, are not counted.",
        unit="MB",
        contenders=[
            Contender(
                name=OURS, command=[sys.executable, script, "--with", sources, slim, *ours], libraries=("openvino",)
            ),
            Contender(
                name=TORCH,
                command=[PEERS / "python", script, slim, "torch", "numpy", "safetensors"],
                libraries=("torch",),
            ),
        ],
        claims=[less("installed size for inference", OURS, TORCH, round(1 / 3, 2), fact="mb")],
    )
