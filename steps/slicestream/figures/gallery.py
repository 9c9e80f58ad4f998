"""The overlays that a report shows: one of each nodule, and those where prediction and reference differ most."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slicestream.errors import ArtefactError

AT_MOST = 48  # without those that nodules lead to
MOST = 400  # with them: about 3 MB of page
CROP_PIXELS = 128  # of a full-frame overlay, around what is marked
QUALITY = 80  # of the JPEG in the page; colour is not subsampled, so that the masks keep their edges
_MAX_SIDE = 4096
_STRONG = 40  # how far a channel must stand over another to count as colour; CT itself is grey


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One overlay: the name it has in the overlays folder, its JPEG as base64, pixels of each colour, its size."""

    name: str
    jpeg_base64: str
    width: int
    height: int
    missed: int
    extra: int
    shared: int


def overlay_files(folder: Path) -> list[Path]:
    """Return the overlays by name. Raises ArtefactError where there is no such folder."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".png")
    except OSError as error:
        raise ArtefactError(f"{folder}: {error.strerror}; need the overlays folder of `slicestream export`.") from error


def gallery(paths: Sequence[Path], wanted: Collection[str] = (), *, at_most: int = AT_MOST) -> list[Picture]:
    """Return the wanted pictures (by stem) and others up to `at_most`, most differing pixels first.

    A picture is cut to its marked part, so that a nodule of a few millimetres can be seen; the files stay whole.
    Raises ArtefactError where a file is no overlay.
    """
    counted = [(*_count(_pixels(path)), path) for path in paths]
    counted.sort(key=lambda entry: (-(entry[0] + entry[1]), entry[3].name))
    others = max(at_most - len(wanted), 0)
    spare = set([entry[3] for entry in counted if entry[3].stem not in wanted][:others])
    return [_picture(entry[3], entry[:3]) for entry in counted if entry[3].stem in wanted or entry[3] in spare]


def nearest(names: Collection[str], rows: Sequence[dict[str, Any]], at_most: int = MOST) -> dict[int, str]:
    """Return by index of the nodule's row the overlay nearest to its middle slice, of at most so many overlays.

    Those that readers and model agree on come last; a nodule that no overlay cuts has none.
    """
    slices: dict[str, list[int]] = {}
    for name in names:
        if found := re.fullmatch(r"(.+)-(\d{4,})", name):
            slices.setdefault(found[1], []).append(int(found[2]))
    led: dict[int, str] = {}
    chosen: set[str] = set()
    for number, row in sorted(enumerate(rows), key=lambda entry: entry[1]["status"] == "true_positive"):
        first, last, series = row["slice_first"] or 0, row["slice_last"] or 0, f"{row['patient']}-{row['series']}"
        inside = [index for index in slices.get(series, ()) if first <= index <= last]
        if inside:
            name = f"{series}-{min(inside, key=lambda index: abs(2 * index - first - last)):04d}"
            if name in chosen or len(chosen) < at_most:
                chosen.add(name)
                led[number] = name
    return led


def _pixels(path: Path) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=["PNG"]) as image:
                if max(image.size) > _MAX_SIDE:
                    raise ValueError(f"{image.size[0]} x {image.size[1]} pixels")
                return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        brief = str(error).replace(f" {str(path)!r}", "")
        raise ArtefactError(
            f"{path}: no readable overlay ({brief}); need a PNG that `slicestream export` wrote. Make it again."
        ) from error


def _count(rgb: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Return the number of green (missed), red (extra) and yellow (shared) pixels."""
    red_over, green_over = _over_blue(rgb)
    shared = red_over & green_over
    counts = (green_over & ~shared, red_over & ~shared, shared)
    missed, extra, both = (int(np.count_nonzero(marked)) for marked in counts)
    return missed, extra, both


def _over_blue(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    channels: NDArray[Any] = rgb.astype(np.int16)
    return channels[..., 0] - channels[..., 2] > _STRONG, channels[..., 1] - channels[..., 2] > _STRONG


def _picture(path: Path, counts: Sequence[int]) -> Picture:
    rgb = _pixels(path)
    red_over, green_over = _over_blue(rgb)
    cut = Image.fromarray(rgb[_around(red_over | green_over)])
    buffer = io.BytesIO()
    cut.save(buffer, format="JPEG", quality=QUALITY, subsampling=0, optimize=True)
    missed, extra, shared = counts
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return Picture(
        name=path.stem,
        jpeg_base64=encoded,
        width=cut.width,
        height=cut.height,
        missed=missed,
        extra=extra,
        shared=shared,
    )


def _around(marked: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the square of at least CROP_PIXELS around the marked pixels; all of an image that is not much larger."""
    rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    if rows.size == 0 or min(marked.shape) <= 3 * CROP_PIXELS:
        return slice(None), slice(None)
    side = max(CROP_PIXELS, int(np.ptp(rows)) + 40, int(np.ptp(columns)) + 40)
    return _span(rows, side, marked.shape[0]), _span(columns, side, marked.shape[1])


def _span(marked: NDArray[np.int64], side: int, whole: int) -> slice:
    start = int(np.clip((marked[0] + marked[-1]) // 2 - side // 2, 0, max(whole - side, 0)))
    return slice(start, start + side)
