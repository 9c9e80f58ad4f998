from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from slicestream.figures.gallery import CROP_PIXELS, gallery
from slicestream.figures.overlays import overlay


def write(path: Path, size: int, *, truth: tuple[slice, slice], prediction: tuple[slice, slice]) -> None:
    grey, drawn, found = np.full((size, size), 0.4), np.zeros((size, size), bool), np.zeros((size, size), bool)
    drawn[truth], found[prediction] = True, True
    Image.fromarray(overlay(grey, drawn, found)).save(path)


def test_those_that_differ_most_come_first_and_colours_are_counted(tmp_path: Path) -> None:
    same = (slice(5, 9), slice(5, 9))
    write(tmp_path / "a.png", 64, truth=same, prediction=same)
    write(tmp_path / "b.png", 64, truth=same, prediction=(slice(7, 9), slice(5, 9)))
    write(tmp_path / "c.png", 64, truth=(slice(0, 0), slice(0, 0)), prediction=(slice(20, 30), slice(20, 30)))
    pictures, there = gallery(tmp_path)
    assert there == 3
    assert [(p.name, p.missed, p.extra, p.shared) for p in pictures] == [
        ("c", 0, 100, 0),
        ("b", 8, 0, 8),
        ("a", 0, 0, 16),
    ]
    assert [picture.name for picture in gallery(tmp_path, 1)[0]] == ["c"]


def test_a_full_frame_is_cut_to_its_marked_part(tmp_path: Path) -> None:
    corner = (slice(500, 506), slice(4, 8))
    write(tmp_path / "full.png", 512, truth=corner, prediction=corner)
    (picture,), _ = gallery(tmp_path)
    with Image.open(io.BytesIO(base64.b64decode(picture.png_base64))) as image:
        assert image.size == (2 * CROP_PIXELS, 2 * CROP_PIXELS)
        pixels = np.asarray(image.convert("RGB"), np.int16)
    yellow = (pixels[..., 0] - pixels[..., 2]) > 40
    assert int(yellow.sum()) == 4 * 24
