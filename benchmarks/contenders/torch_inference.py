"""The same network and weights in PyTorch, on slices spread evenly over the scan, whole, to a mask in memory.

python torch_inference.py eager|monai WEIGHTS SCAN REFERENCE SLICES
    eager: float32, slice by slice
    monai: SlidingWindowInferer over whole slices, at the fastest of the settings that are tried first, untimed
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from safetensors.torch import load_file
from stopwatch import tell

from slicestream.learning.networks import build_unet

LOW_HU, HIGH_HU = -1300.0, 300.0
SAME = 0.9  # bf16 moves the edges of small nodules
TRIED = [(precision, batch) for precision in ("float32", "bfloat16") for batch in (1, 2, 4)]
Infer = Callable[[torch.Tensor], torch.Tensor]


def network_of(path: str) -> torch.nn.Module:
    """Return our U-Net with the weights of the file."""
    weights = load_file(path)
    widths = [weights[f"down.{level}.body.0.weight"].shape[0] for level in range(5)]
    network = build_unet(widths)
    network.load_state_dict(weights)
    return network.eval()


def windowed(hu: np.ndarray) -> torch.Tensor:
    """Return float32 in [0, 1], (N, 1, H, W)."""
    scaled = (hu.astype(np.float32) - LOW_HU) / (HIGH_HU - LOW_HU)
    return torch.from_numpy(np.clip(scaled, 0, 1, out=scaled))[:, None]


def eager(network: torch.nn.Module) -> Infer:
    """Return what takes slices (N, 1, H, W) to probabilities one by one."""
    return lambda images: torch.cat([torch.sigmoid(network(image[None])) for image in images])


def monai_at(network: torch.nn.Module, precision: str, batch: int) -> Infer:
    """Return the same by MONAI's inferer, `batch` slices at once, channels last."""
    from monai.inferers import SlidingWindowInferer

    network = network.to(memory_format=torch.channels_last)

    def infer(images: torch.Tensor) -> torch.Tensor:
        inferer = SlidingWindowInferer(roi_size=images.shape[2:], sw_batch_size=batch, overlap=0)
        with torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else nullcontext():
            return torch.sigmoid(torch.cat([inferer(part, network).float() for part in images.split(batch)]))

    return infer


def fastest(network: torch.nn.Module, images: torch.Tensor) -> tuple[Infer, str]:
    """Try each setting on four slices, once to warm up and once timed; return the best and its name."""
    took = {}
    for precision, batch in TRIED:
        infer = monai_at(network, precision, batch)
        infer(images[:batch])
        begin = time.perf_counter()
        infer(images[:4])
        took[precision, batch] = time.perf_counter() - begin
    precision, batch = min(took, key=lambda setting: took[setting])
    return monai_at(network, precision, batch), f"{precision}, {batch} slices at once"


def main(how: str, weights: str, scan: str, reference: str, slices: int) -> None:
    """Time it, and see that it finds what the reference has at these slices."""
    known, hu = np.load(reference), np.load(scan, mmap_mode="r")
    chosen = np.unique(np.linspace(0, len(hu) - 1, slices).round().astype(int))
    network = network_of(weights)
    infer, setting = eager(network), "float32, slice by slice"
    if how == "monai":
        infer, setting = fastest(network, windowed(hu[chosen[:4]]))
    threshold, found = float(known["threshold"]), []
    begin = time.perf_counter()
    for part in np.array_split(chosen, -(-len(chosen) // 8)):
        found.append(infer(windowed(hu[part]))[:, 0].numpy() >= threshold)
    seconds = time.perf_counter() - begin
    mask, true = np.concatenate(found), known["over_threshold"][chosen]
    iou = float((mask & true).sum() / max(1, (mask | true).sum()))
    if true.any() and iou < SAME:
        sys.exit(f"IoU {iou:.2f} with the reference: not the same work")
    tell(seconds, len(chosen) / 300, iou=iou, setting=setting)


if __name__ == "__main__":
    with torch.inference_mode():
        main(*sys.argv[1:5], int(sys.argv[5]))
