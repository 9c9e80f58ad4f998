from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import output_cases as cases
from slicestream import RESEARCH_ONLY
from slicestream.figures.overlays import chosen_slices, overlay, write_overlays
from slicestream.volumes.volume import Window


def test_truth_is_green_prediction_red_and_both_yellow_over_grey() -> None:
    grey = np.full((2, 2), 0.5)
    truth = np.array([[True, False], [True, False]])
    prediction = np.array([[False, True], [True, False]])
    pixels = overlay(grey, truth, prediction)
    assert pixels[0, 0].tolist() == [51, 171, 93]  # 0.4 x 127.5 + 0.6 x (0, 200, 70)
    assert pixels[0, 1].tolist() == [189, 69, 75]
    assert pixels[1, 0].tolist() == [201, 183, 51]
    assert pixels[1, 1].tolist() == [128, 128, 128]


def test_only_marked_slices_are_drawn_and_small_ones_three_times_larger(tmp_path: Path) -> None:
    paths = write_overlays(tmp_path, cases.volume(), cases.mask(), cases.reference(), at_most=12, window=Window())
    assert [path.name for path in paths] == [f"{cases.SERIES}-{n:04d}.png" for n in (1, 2, 4, 5)]
    with Image.open(paths[0]) as image:
        assert image.size == (3 * 48, 3 * 40)
        assert image.info["Description"] == RESEARCH_ONLY
        red, yellow, green = (image.getpixel((3 * column + 1, 3 * 10 + 1)) for column in (20, 22, 26))
        outside = image.getpixel((1, 1))
    assert red[0] > red[1] + 60
    assert red[0] > red[2] + 60
    assert yellow[0] > yellow[2] + 60
    assert yellow[1] > yellow[2] + 60
    assert green[1] > green[0] + 60
    assert green[1] > green[2] + 40
    assert outside == (80, 80, 80)  # -800 HU in the window from -1300 to 300


def test_without_reference_only_red_is_drawn(tmp_path: Path) -> None:
    paths = write_overlays(tmp_path, cases.volume(), cases.mask(), None, at_most=12, window=Window())
    assert [path.stem[-1] for path in paths] == ["1", "2", "4"]
    for path in paths:
        with Image.open(path) as image:
            red, green, _ = np.moveaxis(np.asarray(image, np.int16), 2, 0)
        assert (green <= red).all()


def test_no_more_than_asked_for_evenly_spread_first_and_last_among_them() -> None:
    marked = np.zeros((100, 2, 2), bool)
    marked[10:91, 0, 0] = True
    assert chosen_slices(marked, 5) == [10, 30, 50, 70, 90]
    assert chosen_slices(marked, 0) == []
    assert chosen_slices(np.zeros((3, 2, 2), bool), 5) == []
