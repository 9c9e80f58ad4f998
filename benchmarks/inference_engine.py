"""ONNX Runtime against OpenVINO on a U-Net of 24 to 384 channels, float32, on this machine's CPU.

Both engines load the same file and answer the same images in one process, taking turns, so that a busy machine slows
both. Printed: medians, their ratio, the largest difference between the engines, whether each gives the same bits again
and at another batch size, and (in fresh processes) how long the import and the first image take.

    python benchmarks/inference_engine.py --threads 2 --repeats 9
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import torch
from numpy.typing import NDArray
from torch import nn

Images = NDArray[np.float32]
Engine = Callable[[Images], Images]


class UNet(nn.Module):
    """Five levels, two 3×3 convolutions with batch normalisation each, nearest upsampling."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(5)]
        self.down = nn.ModuleList(_double(a, b) for a, b in zip([1, *widths[:-1]], widths, strict=True))
        self.up = nn.ModuleList(_double(a + b, a) for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True))
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) to (B, 1, H, W)."""
        skips = [self.down[0](image)]
        for block in list(self.down)[1:]:
            skips.append(block(nn.functional.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for block in self.up:
            x = block(torch.cat([nn.functional.interpolate(x, scale_factor=2.0), skips.pop()], 1))
        return torch.sigmoid(self.head(x))


def _double(inside: int, outside: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a in (inside, outside):
        layers += [nn.Conv2d(a, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers)


def export(width: int, path: Path) -> None:
    """Write a U-Net of random weights as ONNX with dynamic batch, height and width."""
    torch.manual_seed(0)
    net = UNet(width).eval()
    axes = {0: "B", 2: "H", 3: "W"}
    torch.onnx.export(
        net,
        (torch.zeros(1, 1, 64, 64),),
        str(path),
        input_names=["image"],
        output_names=["probability"],
        dynamic_axes={"image": axes, "probability": axes},
        dynamo=False,
    )


def onnxruntime_engine(path: Path, threads: int) -> Engine:
    """Return a function from images to probabilities."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(["probability"], {"image": image})[0]


def openvino_engine(path: Path, threads: int) -> Engine:
    """Return a function from images to probabilities."""
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    return lambda image: np.array(request.infer({"image": image})["probability"])


ENGINES = {"onnxruntime": onnxruntime_engine, "openvino": openvino_engine}


def medians_s(engines: dict[str, Engine], image: Images, repeats: int) -> dict[str, float]:
    """Return the median seconds of each engine, which take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(repeats + 1):
        for name, engine in engines.items():
            begin = time.perf_counter()
            engine(image)
            if turn:  # the first compiles for this shape
                seconds[name].append(time.perf_counter() - begin)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def same_bits(engine: Engine, images: Images) -> dict[str, float]:
    """Return the largest differences: between two runs, and between batches of 1, 3 and all images."""
    whole = engine(images)
    single = np.concatenate([engine(images[i : i + 1]) for i in range(len(images))])
    threes = np.concatenate([engine(images[i : i + 3]) for i in range(0, len(images), 3)])
    pairs = {"again": engine(images), "batch 1": single, "batch 3": threes}
    return {name: float(np.abs(whole - other).max()) for name, other in pairs.items()}


def start_s(name: str, path: Path) -> tuple[float, float]:
    """Return seconds of import and of load + first image of 512×512, in a fresh process."""
    fresh = {
        "onnxruntime": "s = m.InferenceSession(p, providers=['CPUExecutionProvider']); s.run(None, {'image': x})",
        "openvino": "m.Core().compile_model(p, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})({'image': x})",
    }[name]
    code = (
        f"import time, sys, numpy as np; p = {str(path)!r}; x = np.zeros((1, 1, 512, 512), np.float32)\n"
        f"a = time.perf_counter(); import {name} as m; b = time.perf_counter()\n{fresh}\n"
        "print(b - a, time.perf_counter() - b)"
    )
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    return float(answer[0]), float(answer[1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="threads of each engine (default 2)")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each shape and engine (default 7)")
    parser.add_argument("--width", type=int, default=24, help="channels of the first level (default 24)")
    parser.add_argument("--shapes", nargs="+", default=["1x512", "4x512", "8x128", "32x128"], help="batch x side")
    args = parser.parse_args()
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(args.width, path)
        engines = {name: build(path, args.threads) for name, build in ENGINES.items()}
        print(f"onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__}, {args.threads} threads, float32")
        for shape in args.shapes:
            batch, side = (int(n) for n in shape.split("x"))
            image = generator.random((batch, 1, side, side), dtype=np.float32)
            took = medians_s(engines, image, args.repeats)
            apart = float(np.abs(engines["onnxruntime"](image) - engines["openvino"](image)).max())
            each = "  ".join(f"{name} {1000 * s / batch:.1f} ms/slice" for name, s in took.items())
            ratio = took["openvino"] / took["onnxruntime"]
            print(f"{batch} × {side}²: {each}  openvino/onnxruntime {ratio:.2f}  difference {apart:.1e}")
        for name, engine in engines.items():
            print(f"{name}: largest difference {same_bits(engine, generator.random((8, 1, 128, 128), dtype=np.float32))}")
            starts = np.median([start_s(name, path) for _ in range(3)], axis=0)
            print(f"{name}: import {starts[0]:.2f} s, load and first image {starts[1]:.2f} s")


if __name__ == "__main__":
    main()
