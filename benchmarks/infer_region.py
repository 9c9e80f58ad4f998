"""What `infer` saves and changes by bfloat16 and by looking around the lungs alone, against whole slices in float32.

Printed for each volume: how much is looked at, CPU seconds of the network, IoU of the masks, how many of the candidates
are found, and the largest difference of a probability inside the lungs.

    python benchmarks/infer_region.py --model model/model.onnx --volumes prepared/*.volume --margins 32 48
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicestream.inference import region
from slicestream.inference.model import Model, load_model
from slicestream.inference.predict import predict
from slicestream.volumes.candidates import LEVELS, CandidateRule, Candidates, find_candidates
from slicestream.volumes.lungs import Lungs, find_lungs
from slicestream.volumes.volume import Volume, read_volume


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Probabilities in steps of 1/65535, the candidates in them, CPU seconds of the network."""

    probability: NDArray[np.uint16]
    found: Candidates
    seconds: float


def answer_of(model: Model, volume: Volume, lungs: Lungs, windows: Sequence[region.Window2D | None]) -> Answer:
    """Run the network and find candidates as `infer` does."""
    begin = time.process_time()
    probability = predict(model, volume.hu, windows)
    seconds = time.process_time() - begin
    rule = CandidateRule(threshold=model.threshold, min_score=model.min_score)
    found = find_candidates(probability, volume.geometry, rule=rule, lungs=lungs)
    return Answer(probability=probability, found=found, seconds=seconds)


def inside_of(lungs: Lungs, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the lung mask at the voxels of the volume."""
    assert lungs.inside is not None
    places = [np.arange(size) // step for size, step in zip(shape, lungs.steps, strict=True)]
    return lungs.inside[np.ix_(*places)]


def shown(one: Answer, exact: Answer, inside: NDArray[np.bool_]) -> str:
    """Return how near an answer is to the exact one."""
    mask, wanted = one.found.labels > 0, exact.found.labels > 0
    iou = np.count_nonzero(mask & wanted) / max(1, np.count_nonzero(mask | wanted))
    hit = sum(bool(mask[exact.found.labels == c.label].any()) for c in exact.found.candidates)
    apart = np.abs(one.probability[inside].astype(np.int32) - exact.probability[inside]).max() / LEVELS
    return (
        f"IoU {iou:.4f}, candidates {len(one.found.candidates)} (of {len(exact.found.candidates)} found {hit}), "
        f"probability in the lungs {apart:.3f} apart at most, {one.seconds:.1f} CPU s, "
        f"{exact.seconds / one.seconds:.1f} ×"
    )


def cut(volume: Volume, slices: int) -> Volume:
    """Return the middle slices of a volume."""
    first = max(0, (len(volume.hu) - slices) // 2)
    hu = volume.hu[first : first + slices]
    return replace(volume, hu=hu, geometry=replace(volume.geometry, shape=hu.shape))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model.onnx of `slicestream train`")
    parser.add_argument("--volumes", type=Path, nargs="+", required=True, help=".volume files of `preprocess`")
    parser.add_argument("--margins", type=int, nargs="+", default=[region.MARGIN_PX], help="pixels around the lungs")
    parser.add_argument("--slices", type=int, default=10_000, help="take so many from the middle of a volume")
    args = parser.parse_args()
    models = {name: load_model(args.model, threads=1, precision=name) for name in ("float32", "auto")}
    for path in args.volumes:
        volume = cut(read_volume(path), args.slices)
        lungs = find_lungs(volume.hu, volume.geometry)
        inside = inside_of(lungs, volume.hu.shape)
        print(f"{path.name}: {len(volume.hu)} slices", flush=True)
        exact = answer_of(models["float32"], volume, lungs, region.whole(volume.hu.shape))
        for margin in (None, *args.margins):
            windows = region.whole(volume.hu.shape)
            if margin is not None:
                region.MARGIN_PX = margin
                windows = region.around(lungs, volume.geometry)
            looked = sum(map(pixels, windows)) / sum(map(pixels, region.whole(volume.hu.shape)))
            for model in models.values():
                one = answer_of(model, volume, lungs, windows)
                where = "whole slices" if margin is None else f"margin {margin}: {100 * looked:.0f} %"
                print(f"  {where}, {model.network.precision}: {shown(one, exact, inside)}", flush=True)


def pixels(window: region.Window2D | None) -> int:
    """Return how many pixels a window holds."""
    return (window[0].stop - window[0].start) * (window[1].stop - window[1].start) if window else 0


if __name__ == "__main__":
    main()
