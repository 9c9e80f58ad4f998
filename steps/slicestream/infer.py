"""Find candidates in volumes with a model: ONNX on the CPU, three volumes in memory at most.

While the network runs on one, the next is read and the mask of the last is made and written, in a thread each.
Peak memory: about 11 bytes per voxel of one volume (HU 2, probability 2, components 4, labels 2, threshold 1); of
several, what the network needs and 17 bytes per voxel of the largest (2 of the next, 4 of this one, 11 of the last).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from slicestream.errors import ArtefactError, OptionError
from slicestream.inference.engine import PRECISIONS, VERSION
from slicestream.inference.model import Model, load_model
from slicestream.inference.predict import predict
from slicestream.inference.region import around
from slicestream.inference.rescore import rescorer
from slicestream.volumes.artefact import read_header
from slicestream.volumes.candidates import CandidateRule, find_candidates
from slicestream.volumes.cores import available_cores
from slicestream.volumes.lungs import Lungs, find_lungs, no_lungs
from slicestream.volumes.mask import Mask, write_mask
from slicestream.volumes.record import RunRecord, recorded, tag_of
from slicestream.volumes.staging import staged
from slicestream.volumes.volume import Volume, read_volume

CONNECTIVITY = 26
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = (
        "example: slicestream infer --model model/model.onnx --volumes prepared/*.volume --flips --out masks"
    )
    parser.add_argument("--model", type=Path, required=True, help="model.onnx that `slicestream train` wrote")
    parser.add_argument(
        "--volumes", type=Path, nargs="*", default=[], help=".volume files; none given: only the run record is written"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=2,
        help="slices that the network works on at once, each with its share of the threads: changes speed and memory, "
        "not the masks (default 2)",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="auto: bfloat16 where the CPU has instructions for it, twice as fast, else float32; float32: masks that "
        "can be compared between workers of different kinds (default auto)",
    )
    _add_rules(parser)
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores this process may use)")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the masks (default: here)")


def _add_rules(parser: argparse.ArgumentParser) -> None:
    """Declare what decides on candidates."""
    parser.add_argument(
        "--threshold",
        type=float,
        help="least probability of a nodule voxel, between 0 and 1 (default: the one in the model)",
    )
    parser.add_argument(
        "--min-score",
        type=float,
        help="least score of a candidate, 0 or more and under 1; 0 keeps all, for a longer FROC curve (default: the "
        "one in the model)",
    )
    parser.add_argument(
        "--flips",
        action="store_true",
        help="average over four mirrored copies of each slice: steadier, four times the work (default: off)",
    )
    parser.add_argument(
        "--min-diameter-mm",
        type=float,
        default=2.0,
        help="candidates of less volume than a ball of this diameter in mm are dropped (default 2)",
    )
    parser.add_argument(
        "--no-lung-mask",
        action="store_true",
        help="keep candidates that lie outside the lungs with over three quarters of their voxels "
        "(where the field of view is under 220 mm the mask is off anyway)",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Options:
    rule: CandidateRule
    batch_size: int
    flips: bool
    lung_mask: bool
    threads: int


def run(args: argparse.Namespace) -> None:
    """Write one mask per volume, and the run record."""
    threads = available_cores() if args.threads is None else args.threads
    _check(args, threads)
    names = _series_of(args.volumes)
    model = load_model(args.model, threads=threads, at_once=args.batch_size, precision=args.precision)
    options = _Options(
        rule=CandidateRule(
            threshold=model.threshold if args.threshold is None else args.threshold,
            min_diameter_mm=args.min_diameter_mm,
            min_score=model.min_score if args.min_score is None else args.min_score,
            temperature=model.temperature,
        ),
        batch_size=args.batch_size,
        flips=args.flips,
        lung_mask=not args.no_lung_mask,
        threads=threads,
    )
    with staged(args.out) as room, recorded("infer", room, tag=tag_of(names)) as record:
        _describe(record, model, options)
        # what the file is called is the caller's business
        record.add_input("model.onnx", model.content_hash, args.model.stat().st_size)
        for done in _masks(args.volumes, room, model, options):
            record.add_input(f"{done.path.stem}.volume", done.volume_hash, done.volume_size)
            record.add_output(done.path, done.content_hash)
            record.items += done.slices


def _check(args: argparse.Namespace, threads: int) -> None:
    if args.batch_size < 1:
        raise OptionError(f"--batch-size {args.batch_size}: need a whole number of slices, 1 or more. Try 2.")
    if threads < 1:
        raise OptionError(f"--threads {threads}: need 1 or more. Leave it out to use all cores.")
    if args.threshold is not None and not 0 < args.threshold < 1:
        raise OptionError(
            f"--threshold {args.threshold:g}: need a probability between 0 and 1, both excluded. "
            "Leave it out to use the model's."
        )
    if args.min_score is not None and not 0 <= args.min_score < 1:
        raise OptionError(
            f"--min-score {args.min_score:g}: need a score from 0 to under 1. Leave it out to use the model's."
        )
    if not 0 <= args.min_diameter_mm < 1000:
        raise OptionError(f"--min-diameter-mm {args.min_diameter_mm:g}: need millimetres, 0 or more. Try 2.")


def _series_of(paths: Sequence[Path]) -> list[str]:
    """Return the pseudonyms of all volumes, read from their headers: a doubled one is found before the long work."""
    seen: dict[str, Path] = {}
    for path in paths:
        header, _ = read_header(path, "volume")
        name = f"{header.get('patient')}-{header.get('series')}"
        if name in seen:
            raise ArtefactError(
                f"{path}: series {name} was already given as {seen[name]}; need each volume once. Remove one."
            )
        seen[name] = path
    return list(seen)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    volume: Volume
    lungs: Lungs
    size: int  # of the file, bytes
    progress: _Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class _Written:
    path: Path
    content_hash: str
    volume_hash: str
    volume_size: int
    slices: int


def _masks(paths: Sequence[Path], room: Path, model: Model, options: _Options) -> Iterator[_Written]:
    """Write one mask per volume, in order. What is yielded holds no voxels: the volume is to go from memory."""

    def read(numbered: tuple[int, Path]) -> _Case:
        number, path = numbered
        volume = read_volume(path)
        lungs = find_lungs(volume.hu, volume.geometry) if options.lung_mask else no_lungs("switched off")
        progress = _Progress(f"infer: volume {number}/{len(paths)}, {len(volume.hu)} slices")
        return _Case(volume=volume, lungs=lungs, size=path.stat().st_size, progress=progress)

    def seen(case: _Case) -> tuple[_Case, NDArray[np.uint16]]:
        windows = around(case.lungs, case.volume.geometry)
        case.progress.begin()
        return case, predict(model, case.volume.hu, windows, flips=options.flips, progress=case.progress.at_slice)

    def written(answer: tuple[_Case, NDArray[np.uint16]]) -> _Written:
        case, probability = answer
        target = room / f"{case.volume.id}.mask"
        mask = _mask(case.volume, case.lungs, probability, model, options)
        case.progress.end(f"{len(mask.candidates)} candidates")
        return _Written(
            path=target,
            content_hash=write_mask(target, mask),
            volume_hash=case.volume.content_hash,
            volume_size=case.size,
            slices=len(case.volume.hu),
        )

    yield from _ahead(written, map(seen, _ahead(read, enumerate(paths, start=1))))


def _ahead(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Yield function(item) in order, computed in a thread: one result is ahead of the one in use, no more."""
    coming: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(1) as thread:
        for item in items:
            coming.append(thread.submit(function, item))
            if len(coming) > 1:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _mask(volume: Volume, lungs: Lungs, probability: NDArray[np.uint16], model: Model, options: _Options) -> Mask:
    rescore = rescorer(model, volume)
    found = find_candidates(probability, volume.geometry, rule=options.rule, lungs=lungs, rescore=rescore)
    return Mask(
        kind="mask",
        id=volume.id,
        labels=found.labels,
        geometry=volume.geometry,
        volume_hash=volume.content_hash,
        model_hash=model.content_hash,
        candidates=found.candidates,
        # not the batch size and not the threads: they do not change the mask
        settings={
            "threshold": options.rule.threshold,
            "connectivity": CONNECTIVITY,
            "min_diameter_mm": options.rule.min_diameter_mm,
            "min_inside": options.rule.min_inside,
            "min_score": options.rule.min_score,
            "flips": options.flips,
            "precision": model.network.precision,
            "score": "mean probability" if rescore is None else "second network",
            "temperature": options.rule.temperature,
            "lung_mask": lungs.settings(),
            "dropped": found.dropped,
        },
    )


def _describe(record: RunRecord, model: Model, options: _Options) -> None:
    record.unit = "slices"
    record.device = f"{_cpu_name()}, {options.threads} threads"
    record.versions |= {"openvino": VERSION, "numpy": np.__version__}
    record.parameters = _parameters(model, options)


def _parameters(model: Model, options: _Options) -> dict[str, Any]:
    return {
        "architecture": model.architecture,
        "window_hu": [model.window.low_hu, model.window.high_hu],
        "threshold": options.rule.threshold,
        "min_diameter_mm": options.rule.min_diameter_mm,
        "min_score": options.rule.min_score,
        "temperature": options.rule.temperature,
        "flips": options.flips,
        "precision": model.network.precision,
        "lung_mask": options.lung_mask,
        "batch_size": options.batch_size,
        "threads": options.threads,
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return "cpu"


class _Progress:
    """One line on stderr per volume; on a terminal it is rewritten while slices are done, else a line every 30 s."""

    def __init__(self, title: str) -> None:
        self._title, self._slices = title, 0
        self.begin()

    def begin(self) -> None:
        """Count from now on: it was made when the volume was read."""
        self._begin = self._said = time.monotonic()

    def at_slice(self, done: int) -> None:
        self._slices = done
        now = time.monotonic()
        if now - self._said >= (0.5 if sys.stderr.isatty() else 30.0):
            self._said = now
            self._say(f"{done} done", last=False)

    def end(self, result: str) -> None:
        self._say(result, last=True)

    def _say(self, text: str, *, last: bool) -> None:
        rate = self._slices / max(time.monotonic() - self._begin, 1e-3)
        line = f"{self._title}: {text}, {rate:.1f} slices/s"
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line}", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)
