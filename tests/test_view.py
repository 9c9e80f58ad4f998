from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import output_cases as cases
from browser import write_series
from slicestream import RESEARCH_ONLY
from slicestream.__main__ import main
from slicestream.volumes.mask import ReferenceNodule, read_mask, write_mask

SHAPE = (4, 16, 16)
ASSETS = {"index.html", "viewer.css", "viewer.js", "voxels.js", "niivue.js", "niivue-licences.txt", "series.js"}


def view(folder: Path, out: Path, *more: str) -> int:
    words = ["view", "--out", str(out), *more]
    for flag, kind in (("--masks", "mask"), ("--volumes", "volume"), ("--references", "reference")):
        words += [flag, *sorted(str(path) for path in folder.glob(f"*.{kind}"))]
    return main(words)


def listed(out: Path) -> dict[str, object]:
    text = (out / "viewer/series.js").read_text()
    found: dict[str, object] = json.loads(text.removeprefix("const SERIES = ").removesuffix(";\n"))
    return found


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Two series of noise, one with a nodule found and one missed, one without a reference."""
    folder = tmp_path / "in"
    folder.mkdir()
    found, drawn = np.zeros(SHAPE, np.uint16), np.zeros(SHAPE, np.uint16)
    found[1, 2:5, 2:5] = 1
    drawn[1, 2:5, 2:6] = 1
    drawn[3, 10:12, 10:12] = 2
    for patient, reference in ((1, drawn), (2, None)):
        hu = np.random.default_rng(patient).integers(-1000, 400, SHAPE).astype(np.int16)
        write_series(folder, hu, found, reference, patient=patient)
    return folder


def test_a_folder_is_flat_and_lists_series_and_nodules(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert view(two, tmp_path / "out") == 0
    one, other = f"{1:016x}-{1:016x}", f"{2:016x}-{1:016x}"
    assert {path.name for path in (tmp_path / "out/viewer").iterdir()} == ASSETS | {f"{one}.js", f"{other}.js"}
    first, second = listed(tmp_path / "out")["series"]
    assert [(n["key"], n["status"]) for n in first["nodules"]] == [("1", "true_positive"), ("r2", "missed")]
    assert [(n["key"], n["status"]) for n in second["nodules"]] == [("1", "candidate")]
    assert (first["compared"], second["compared"]) == (True, False)
    assert (tmp_path / "out/viewer" / f"{one}.js").read_text().startswith(f'sliceStream({{"id":"{one}"')
    said = capsys.readouterr().out
    assert "viewer/index.html: 2 series, 3 nodules in their lists" in said
    assert RESEARCH_ONLY in said
    record = json.loads((tmp_path / "out/view.run.json").read_text())
    assert (record["items"], record["unit"]) == (2, "series")
    assert set(record["outputs"]) == {f"{one}.js", f"{other}.js", "series.js"}
    assert f"{one}.reference" in record["inputs"]


def test_what_does_not_fit_is_left_out_and_named(two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert view(two, tmp_path / "whole") == 0
    one, other = sorted(path for path in (tmp_path / "whole/viewer").glob("0*.js"))
    capsys.readouterr()
    assert view(two, tmp_path / "out", "--most-mb", str((one.stat().st_size + 10) / 1e6)) == 0
    assert [path.name for path in (tmp_path / "out/viewer").glob("0*.js")] == [one.name]
    assert listed(tmp_path / "out")["left_out"] == [other.stem]
    assert re.search(rf"left out, over 0\.\d+ MB: 1 series \({other.stem}\)", capsys.readouterr().out)
    assert json.loads((tmp_path / "out/view.run.json").read_text())["parameters"]["series_left_out"] == [other.stem]


def test_the_same_input_gives_the_same_bytes(two: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert view(two, tmp_path / name) == 0
    one, other = (
        {path.name: path.read_bytes() for path in (tmp_path / n / "viewer").iterdir()} for n in ("one", "two")
    )
    assert len(one) == 9
    assert one == other


def test_places_without_an_outline_are_listed(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint16)
    series = write_series(tmp_path, np.zeros(SHAPE, np.int16), labels, labels)
    path = tmp_path / f"{series}.reference"
    point = ReferenceNodule(label=0, form="point", index=(2.0, 3.0, 4.0))
    write_mask(path, replace(read_mask(path, "reference"), nodules=(point,)))
    assert view(tmp_path, tmp_path / "out") == 0
    (entry,) = listed(tmp_path / "out")["series"]
    # the viewer's x and y run against the columns and rows of a supine scan
    assert entry["nodules"] == [{"key": "p1", "status": "place", "slice": 2, "at": [11.0, 12.0, 2.0]}]


def test_swapped_and_missing_volumes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = (
        cases.write_case(tmp_path / "one"),
        cases.write_case(tmp_path / "other", np.zeros(cases.SHAPE, np.uint16)),
    )
    assert main(["view", "--masks", str(one["mask"]), "--volumes", "--out", str(tmp_path / "out")]) == 2
    assert "no volume of series" in capsys.readouterr().err
    wrong = ["view", "--masks", str(one["mask"]), "--volumes", str(one["volume"]), "--references", str(other["mask"])]
    assert main([*wrong, "--out", str(tmp_path / "out")]) == 2
    assert main(["view", "--masks", "--volumes", "--most-mb", "-1", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.endswith("need a size in MB, 0 or more. Give 1000, say.\n")
    assert not (tmp_path / "out").exists()


def test_nothing_to_show_is_a_page_that_says_so(tmp_path: Path) -> None:
    assert main(["view", "--masks", "--volumes", "--out", str(tmp_path)]) == 0
    assert {path.name for path in (tmp_path / "viewer").iterdir()} == ASSETS
    assert listed(tmp_path)["series"] == []
