from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from slicestream.figures.gallery import CROP_PIXELS, gallery, nearest, overlay_files
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
    pictures = gallery(overlay_files(tmp_path))
    assert [(p.name, p.missed, p.extra, p.shared) for p in pictures] == [
        ("c", 0, 100, 0),
        ("b", 8, 0, 8),
        ("a", 0, 0, 16),
    ]
    assert [picture.name for picture in gallery(overlay_files(tmp_path), at_most=1)] == ["c"]


def test_the_wanted_are_there_however_little_differs_in_them(tmp_path: Path) -> None:
    same = (slice(5, 9), slice(5, 9))
    for name, columns in (("a", 9), ("b", 12), ("c", 30)):
        write(tmp_path / f"{name}.png", 64, truth=same, prediction=(slice(5, 9), slice(5, columns)))
    assert [p.name for p in gallery(overlay_files(tmp_path), {"a"}, at_most=2)] == ["c", "a"]
    assert [p.name for p in gallery(overlay_files(tmp_path), {"a", "b"}, at_most=1)] == ["b", "a"]


def test_a_nodule_leads_to_the_overlay_nearest_to_its_middle() -> None:
    def nodule(series: str, first: int, last: int, status: str = "missed") -> dict[str, object]:
        return {"patient": "p", "series": series, "slice_first": first, "slice_last": last, "status": status}

    names = ["p-s-0004", "p-s-0007", "p-s-0020", "p-t-0005", "odd"]
    rows = [nodule("s", 3, 9), nodule("s", 3, 5), nodule("s", 8, 19), nodule("t", 5, 5)]
    assert nearest(names, rows) == {0: "p-s-0007", 1: "p-s-0004", 3: "p-t-0005"}
    agreed = nodule("s", 20, 20, "true_positive")
    assert nearest(names, [agreed, nodule("t", 5, 5)], at_most=1) == {1: "p-t-0005"}


def test_a_full_frame_is_cut_to_its_marked_part(tmp_path: Path) -> None:
    corner = (slice(500, 506), slice(4, 8))
    write(tmp_path / "full.png", 512, truth=corner, prediction=corner)
    (picture,) = gallery(overlay_files(tmp_path))
    with Image.open(io.BytesIO(base64.b64decode(picture.jpeg_base64))) as image:
        assert image.size == (picture.width, picture.height) == (CROP_PIXELS, CROP_PIXELS)
        pixels = np.asarray(image.convert("RGB"), np.int16)
    yellow = (pixels[..., 0] - pixels[..., 2]) > 60
    assert int(yellow.sum()) == 24
