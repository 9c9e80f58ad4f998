"""The overlays that a report shows: those where prediction and reference differ most come first."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slicestream.errors import ArtefactError

AT_MOST = 48
CROP_PIXELS = 160  # of a full-frame overlay, around what is marked
_MAX_SIDE = 4096
_STRONG = 40  # how far a channel must stand over another to count as colour; CT itself is grey


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One overlay: the name it has in the overlays folder, its PNG as base64, pixels of each colour."""

    name: str
    png_base64: str
    missed: int
    extra: int
    shared: int


def gallery(folder: Path, at_most: int = AT_MOST) -> tuple[list[Picture], int]:
    """Return at most so many pictures, most differing pixels first, and how many overlays there are.

    A picture is cut to its marked part, so that a nodule of a few millimetres can be seen; the files stay whole.
    Raises ArtefactError where a file is no overlay.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".png")
    except OSError as error:
        raise ArtefactError(f"{folder}: {error.strerror}; need the overlays folder of `slicestream export`.") from error
    counted = [(*_count(_pixels(path)), path) for path in paths]
    counted.sort(key=lambda entry: (-(entry[0] + entry[1]), entry[3].name))
    return [_picture(entry[3], entry[:3]) for entry in counted[:at_most]], len(paths)


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
    if max(cut.size) < 2 * CROP_PIXELS:
        cut = cut.resize((cut.width * 2, cut.height * 2), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    cut.save(buffer, format="PNG")
    missed, extra, shared = counts
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return Picture(name=path.stem, png_base64=encoded, missed=missed, extra=extra, shared=shared)


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
