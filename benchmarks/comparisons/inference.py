"""From a volume to a mask."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import CONTENDERS, PEERS, Comparison, Contender, agrees, faster
from inputs import phantom_scan, reference_mask, trained_model

OURS, EAGER, MONAI = "slicestream infer", "PyTorch, eager float32", "MONAI SlidingWindowInferer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Channels of the first level as trained, epochs of that, slices for us, for eager PyTorch, for MONAI.

    Attributes
    ----------
    times : each channel is there so many times when the network runs
    """

    width: int
    epochs: int
    ours: int
    eager: int
    monai: int
    matrix: int = 512
    times: int = 1


SIZES = {
    "trial": (Work(width=8, epochs=40, ours=48, eager=4, monai=8, matrix=128),),
    "bench": (
        Work(width=16, epochs=60, ours=300, eager=30, monai=60),
        Work(width=16, times=4, epochs=60, ours=60, eager=6, monai=12),
    ),
    "full": (
        Work(width=16, epochs=60, ours=300, eager=300, monai=300),
        Work(width=16, times=4, epochs=60, ours=300, eager=300, monai=300),
    ),
}


def comparisons(size: str, inputs: Path) -> Iterator[Comparison]:
    """Yield one per network, each when its turn comes: the models are trained for minutes."""
    yield from (_comparison(work, inputs) for work in SIZES[size])


def _comparison(work: Work, inputs: Path) -> Comparison:
    model = trained_model(inputs, work.matrix, work.width, work.epochs, work.times)
    scan = phantom_scan(inputs, work.ours, work.matrix)
    reference = reference_mask(inputs, model, scan)
    width = work.width * work.times
    widened = f" (one of {work.width} with each channel {work.times} times)" if work.times > 1 else ""
    what = f"inference, U-Net {width}"
    torch = [PEERS / "python", CONTENDERS / "torch_inference.py"]
    files = (model / "weights.safetensors", scan / "hu.npy", reference)
    return Comparison(
        name=f"inference-{width}",
        how=f"U-Net of {width} to {16 * width} channels{widened}, a phantom chest of {work.ours} slices of "
        f"{work.matrix} × {work.matrix}. Ours: the whole step, on all slices. PyTorch and MONAI: network, sigmoid and "
        f"threshold alone, whole slices, on {work.eager} and {work.monai} of them spread evenly; MONAI at the fastest "
        "of float32 and bf16 with 1, 2, 4 slices at once, channels last, chosen in each call before the time is taken.",
        unit="s per 300 slices",
        contenders=[
            Contender(
                name=OURS,
                command=[
                    *(sys.executable, CONTENDERS / "our_inference.py", model / "model.onnx", scan / "scan.volume"),
                    *(reference, "{work}"),
                ],
                libraries=("slicestream", "openvino"),
            ),
            Contender(name=EAGER, command=[*torch, "eager", *files, str(work.eager)], libraries=("torch",)),
            Contender(name=MONAI, command=[*torch, "monai", *files, str(work.monai)], libraries=("torch", "monai")),
        ],
        claims=[
            faster(what, OURS, EAGER, 10),
            faster(what, OURS, MONAI, 2.5),
            agrees(f"{what}: IoU of the mask with float32's", OURS, 0.99, fact="iou"),
        ],
    )
