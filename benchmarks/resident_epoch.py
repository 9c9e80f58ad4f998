"""Epochs of recipe `paper` over a training set that stays in the device's memory, against what the device can do.

The authors' 13,589 images of 512², here phantom slices of different noise, drawn over and over:

    python benchmarks/resident_epoch.py --images 13589 --epochs 3 --compile

Prints images per second, the epoch against the bare step (our own step on one random batch that stays), the share of
the bf16 (or float32) matrix peak and of the memory bandwidth, both measured first. What the network moves is counted
as each module's inputs and outputs once, backward as twice the forward pass: less than what really moves.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inputs import phantom_scan
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from slicestream.learning.checkpoint import locked_checkpoint
from slicestream.learning.data import SliceSet
from slicestream.learning.device import Device, choose_device
from slicestream.learning.losses import loss_of
from slicestream.learning.networks import build_unet
from slicestream.learning.recipe import Recipe, find_recipe
from slicestream.learning.training import train
from slicestream.volumes.slices import SliceStack
from slicestream.volumes.volume import SeriesId, read_volume

PHANTOM_SLICES = 32
NODULE_HU = -300  # walls and vessels are drawn: times are measured, not results


def images_of(folder: Path, count: int, side: int) -> SliceSet:
    """Return `count` slices of `side`², those of one phantom with noise of their own."""
    volume = read_volume(phantom_scan(folder, PHANTOM_SLICES, side) / "scan.volume")
    rng = np.random.default_rng(0)
    noise = rng.integers(-20, 20, side * side + count, dtype=np.int16)
    hu = np.empty((count, side, side), np.int16)
    for index in range(count):  # a window of the noise that moves on by one pixel
        moved = noise[index : index + side * side].reshape(side, side)
        np.add(volume.hu[index % PHANTOM_SLICES], moved, out=hu[index])
    name = SeriesId(patient="0" * 16, series="0" * 16)
    drawn = (hu > NODULE_HU).view(np.uint8)
    return SliceSet.from_stacks([SliceStack(id=name, hu=hu, nodule=drawn, spacing_mm=(1.0, 0.6, 0.6))])


def waited(device: Device) -> float:
    """Return the time once the device has done all that it was given."""
    if device.torch_device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def median_seconds(work: Callable[[], object], device: Device, repeats: int) -> float:
    """Return the median over `repeats` calls, after one that does not count."""
    work()
    seconds = []
    for _ in range(repeats):
        begin = waited(device)
        work()
        seconds.append(waited(device) - begin)
    return statistics.median(seconds)


def limits(device: Device) -> dict[str, float]:
    """Measure the device: matrix product in FLOP/s, copy in bytes/s (read and written)."""
    large = device.torch_device.type == "cuda"
    size, copied = (8192, 1 << 30) if large else (1024, 1 << 26)
    kind = torch.bfloat16 if device.bf16 else torch.float32
    one = torch.rand((size, size), device=device.torch_device).to(kind)
    source = torch.zeros(copied, dtype=torch.uint8, device=device.torch_device)
    target = torch.empty_like(source)
    return {
        "matrix_flop_per_s": 2 * size**3 / median_seconds(lambda: one @ one, device, 10),
        "bytes_per_s": 2 * copied / median_seconds(lambda: target.copy_(source), device, 10),
    }


def cost(network: nn.Module, image: Tensor, device: Device) -> dict[str, float]:
    """Count FLOP and bytes of one image's training: forward, and twice that backward."""
    moved = 0

    def count(_module: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> None:
        nonlocal moved
        moved += (sum(tensor.numel() for tensor in given) + answer.numel()) * (2 if device.bf16 else 4)

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    with torch.no_grad(), device.autocast(), FlopCounterMode(display=False) as counter:
        network(image)
    for hook in hooks:
        hook.remove()
    return {"flop": 3 * counter.get_total_flops() / len(image), "bytes": 3 * moved / len(image)}


def bare_step(
    recipe: Recipe, networks: tuple[nn.Module, Callable[[Tensor], Tensor]], image: Tensor, device: Device
) -> Callable[[], None]:
    """Return forward, backward and optimiser of a network (and it compiled, or itself) on a batch that stays."""
    network, forward = networks
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, fused=True)
    target = (image > 0.98).float()

    def step() -> None:
        with device.autocast():
            logits = forward(image)
        loss = loss_of(recipe, logits.float(), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def epochs_of(recipe: Recipe, slices: SliceSet, device: Device, *, compiled: bool) -> list[float]:
    """Train; return images per second of every epoch. Two slices are validated on, untimed."""
    few = SliceSet.from_stacks(
        [
            SliceStack(
                id=SeriesId(patient="1" * 16, series="1" * 16),
                hu=slices.hu[: slices.side(1) ** 2].reshape(1, slices.side(1), -1).numpy(),
                nodule=slices.nodule[: slices.side(1) ** 2].reshape(1, slices.side(1), -1).numpy(),
                spacing_mm=(1.0, 0.6, 0.6),
            )
        ]
    )
    with tempfile.TemporaryDirectory() as folder, locked_checkpoint(Path(folder), "resident") as checkpoint:
        outcome = train(
            slices,
            few,
            recipe=recipe,
            seed=0,
            device=device,
            checkpoint=checkpoint,
            compiled=compiled,
            on_epoch=lambda history: print(f"epoch {len(history)}: {history[-1].images_per_second:.2f} images/s"),
        )
    return [epoch.images_per_second for epoch in outcome.history]


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Return all figures."""
    device = choose_device("auto")
    recipe = replace(find_recipe("paper"), epochs=args.epochs, patience=args.epochs, batch_size=args.batch_size)
    torch.manual_seed(0)
    network = build_unet(recipe.widths)
    network = network.to(device.torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.rand((recipe.batch_size, 1, args.side, args.side), device=device.torch_device)
    image = image.contiguous(memory_format=torch.channels_last)
    able, needed = limits(device), cost(network, image, device)
    forward: Callable[[Tensor], Tensor] = torch.compile(network) if args.compile else network
    bare = recipe.batch_size / median_seconds(bare_step(recipe, (network, forward), image, device), device, args.steps)
    del network, forward
    slices = images_of(args.inputs, args.images, args.side)
    speeds = epochs_of(recipe, slices, device, compiled=args.compile)
    speed = statistics.median(speeds[1:] or speeds)  # the first epoch compiles
    return {
        "device": device.description,
        "torch": torch.__version__,
        "images": args.images,
        "side": args.side,
        "batch_size": recipe.batch_size,
        "compiled": args.compile,
        "images_per_s": speed,
        "seconds_per_epoch": args.images / speed,
        "epoch_against_bare_step": speed / bare,
        "share_of_matrix_peak": speed * needed["flop"] / able["matrix_flop_per_s"],
        "share_of_bandwidth": speed * needed["bytes"] / able["bytes_per_s"],
        "bare_images_per_s": bare,
        **able,
        **{f"{name}_per_image": value for name, value in needed.items()},
    }


def main() -> None:
    """Measure and print as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=13589)
    parser.add_argument("--side", type=int, default=512, help="rows and columns, a multiple of 16")
    parser.add_argument("--batch-size", type=int, default=find_recipe("paper").batch_size)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="bare steps")
    parser.add_argument("--compile", action="store_true", help="as `slicestream train --compile`")
    parser.add_argument("--inputs", type=Path, default=Path("runs/bench/inputs"), help="where the phantom is kept")
    args = parser.parse_args()
    args.inputs.mkdir(parents=True, exist_ok=True)
    print(json.dumps({name: _rounded(value) for name, value in measured(args).items()}, indent=1))


def _rounded(value: object) -> object:
    if not isinstance(value, float) or not math.isfinite(value) or not value:
        return value
    return float(f"{value:.4g}")


if __name__ == "__main__":
    main()
