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

from slicestream.learning.model import ModelFacts, write_model
from slicestream.learning.networks import build_unet
from slicestream.volumes.volume import Window

Images = NDArray[np.float32]
Engine = Callable[[Images], Images]


def export(width: int, folder: Path) -> Path:
    """Write our U-Net of five levels with random weights; return its model.onnx."""
    torch.manual_seed(0)
    network = build_unet([width * 2**level for level in range(5)]).eval()
    torch.nn.init.normal_(network.head.weight, std=0.1)  # it starts at zero, which would answer the same everywhere
    write_model(folder, network, facts=ModelFacts(window=Window(), spacing_mm=(0.7, 0.7), threshold=0.5), card={})
    return folder / "model.onnx"


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
    parser.add_argument("--shapes", nargs="+", default=["1x512", "2x512", "2x128", "8x128"], help="batch x side")
    args = parser.parse_args()
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = export(args.width, Path(folder))
        engines = {name: build(path, args.threads) for name, build in ENGINES.items()}
        print(
            f"onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__}, {args.threads} threads, float32"
        )
        for shape in args.shapes:
            batch, side = (int(n) for n in shape.split("x"))
            image = generator.random((batch, 1, side, side), dtype=np.float32)
            took = medians_s(engines, image, args.repeats)
            apart = float(np.abs(engines["onnxruntime"](image) - engines["openvino"](image)).max())
            each = "  ".join(f"{name} {1000 * s / batch:.1f} ms/slice" for name, s in took.items())
            ratio = took["openvino"] / took["onnxruntime"]
            print(f"{batch} × {side}²: {each}  openvino/onnxruntime {ratio:.2f}  difference {apart:.1e}")
        for name, engine in engines.items():
            print(
                f"{name}: largest difference {same_bits(engine, generator.random((8, 1, 128, 128), dtype=np.float32))}"
            )
            starts = np.median([start_s(name, path) for _ in range(3)], axis=0)
            print(f"{name}: import {starts[0]:.2f} s, load and first image {starts[1]:.2f} s")


if __name__ == "__main__":
    main()
