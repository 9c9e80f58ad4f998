"""From annotations to the reference, the training slices and the figures, through preprocess to the end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from annotated import TABLE_HEAD, instance, outline, preprocess, reading, references
from ct_files import ROOT, ct_series, unitochest
from lidc_files import RATED, nodule, roi
from made import ball, mask
from slicestream.__main__ import main
from slicestream.dicom.segmentation import write_segmentation
from slicestream.volumes.mask import Mask, write_mask
from slicestream.volumes.slices import read_slices


def test_a_folder_with_lidc_readings_is_an_annotated_cohort(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ct_series(tmp_path / "ct" / "a", slices=6)
    small = nodule(roi([(13, 12)], uid=instance(5)), ratings=None)
    first = [outline(2, 2, 4, 1, 2, malignancy=5), outline(2, 7, 3, 2), small]
    reading(tmp_path / "ct" / "a" / "069.xml", first, [outline(2, 3, 4, 1, 2, malignancy=2)], [])
    assert preprocess(tmp_path / "ct", tmp_path / "out", "--negatives", "0", "--consensus", "all") == 0
    (reference,) = references(tmp_path / "out")
    expected = np.zeros((6, 16, 16), np.uint16)
    expected[1:3, 2:6, 3:6] = 1
    expected[2, 2:5, 7:10] = 2  # touches nothing, for `all` took a column; see the next test
    assert np.array_equal(reference.labels, expected)
    assert [(c.label, c.voxels) for c in reference.candidates] == [(1, 24), (2, 9)]
    assert [(n.label, n.form, n.readers) for n in reference.nodules] == [
        (1, "outline", 2),
        (2, "outline", 1),
        (0, "point", 1),
    ]
    assert reference.nodules[0].ratings == {name: float(value) for name, value in RATED.items()} | {"malignancy": 3.5}
    assert reference.nodules[2].index == (5, 13, 12)
    (stack,) = read_slices(tmp_path / "out" / "training-1of1.slices")
    assert np.array_equal(stack.nodule, expected[1:3] > 0)
    (entry,) = json.loads((tmp_path / "out" / "series-1of1.json").read_text())["series"]
    assert (entry["annotated_slices"], entry["training_slices"]) == (2, 2)
    record = json.loads((tmp_path / "out" / "preprocess-1of1.run.json").read_text())
    assert (record["parameters"]["consensus"], record["parameters"]["minimum_readers"]) == ("all", 1)
    assert "nodules with a place only (under 3 mm), no part of the mask: 1" in capsys.readouterr().err


def test_two_nodules_that_touch_stay_two(tmp_path: Path) -> None:
    ct_series(tmp_path / "ct")
    reading(tmp_path / "ct" / "a.xml", [outline(2, 2, 4, 1), outline(2, 6, 4, 1)])
    assert preprocess(tmp_path / "ct", tmp_path / "out") == 0
    (reference,) = references(tmp_path / "out")
    assert [c.voxels for c in reference.candidates] == [16, 16]


def test_a_reference_holds_no_name_and_no_uid_of_its_source(tmp_path: Path) -> None:
    ct_series(tmp_path / "ct")
    reading(tmp_path / "ct" / "a.xml", [outline(2, 2, 4, 1), nodule(roi([(9, 9)], uid=instance(1)), ratings=None)])
    preprocess(tmp_path / "ct", tmp_path / "out")
    for path in tmp_path.glob("out/*"):
        if path.suffix != ".identity" and not path.name.startswith("manifest"):  # those stay
            content = path.read_bytes()
            assert not any(mark in content for mark in (ROOT.encode(), b"IL057", b"a.xml", b"anon")), path


def test_luna16_spheres_go_through_to_the_reference_and_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ct_series(tmp_path / "ct", slices=6)
    ct_series(tmp_path / "ct" / "other", series=2)
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "annotations.csv").write_text(
        f"{TABLE_HEAD}{ROOT}.1,4.2,5.6,5,6\n1.2.3,0,0,0,4\n1.2.4,0,0,0,4\n"
    )
    assert preprocess(tmp_path / "ct", tmp_path / "out", "--annotations", str(tmp_path / "csv")) == 0
    (reference,) = references(tmp_path / "out")  # the other series has no row, so nobody is said to have read it
    assert np.array_equal(reference.labels, ball((6, 16, 16), (2, 8, 6), 3.0, (2.5, 0.7, 0.7)))
    assert [n.form for n in reference.nodules] == ["sphere"]
    said = capsys.readouterr().err
    assert "nodules that are spheres of a centre and a diameter, no outlines: 1" in said
    assert "annotations (luna16) of series that are not in the cohort: 2" in said
    scores(tmp_path, reference)
    assert "spheres of a centre and a diameter: 1 of 1 reference nodules; IoU, Dice" in capsys.readouterr().out
    (case,) = json.loads((tmp_path / "scores" / "metrics.json").read_text())["cases_detail"]
    assert [(n["form"], n["readers"], n["malignancy"]) for n in case["nodules"]] == [("sphere", 1, None)]


def scores(folder: Path, reference: Mask) -> None:
    """Evaluate a mask that is the reference itself."""
    write_mask(folder / f"{reference.id}.mask", replace(reference, kind="mask", nodules=(), model_hash="cd" * 32))
    paths = ["--masks", str(folder / f"{reference.id}.mask"), "--references", *map(str, folder.glob("out/*.reference"))]
    assert main(["evaluate", *paths, "--out", str(folder / "scores")]) == 0


def test_readers_and_malignancy_stand_in_the_figures(tmp_path: Path) -> None:
    ct_series(tmp_path / "ct")
    reading(tmp_path / "ct" / "a.xml", [outline(2, 2, 4, 1, malignancy=5)], [outline(2, 2, 4, 1, malignancy=4)])
    preprocess(tmp_path / "ct", tmp_path / "out")
    scores(tmp_path, references(tmp_path / "out")[0])
    metrics = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert metrics["nodules"]["forms"] == {"outline": 1, "sphere": 0}
    (found,) = metrics["cases_detail"][0]["nodules"]
    assert (found["form"], found["readers"], found["malignancy"]) == ("outline", 2, 4.5)


def test_the_dry_run_counts_the_slices_of_the_annotations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ct_series(tmp_path / "ct")
    reading(tmp_path / "ct" / "a.xml", [outline(2, 2, 4, 1, 2)])
    assert preprocess(tmp_path / "ct", tmp_path / "out", "--dry-run", "--negatives", "0") == 0
    said = capsys.readouterr().out
    assert [line.split()[5:7] for line in said.splitlines() if line.startswith("sum")] == [["2", "slices"]]


def test_backgrounds_are_annotated_in_the_same_way(tmp_path: Path) -> None:
    unitochest(tmp_path / "cohort", patients=1)
    ct_series(tmp_path / "more", patient="H", series=7, slices=3)
    reading(tmp_path / "more" / "a.xml", [outline(2, 2, 4, 1, series=7)], series=7)
    assert preprocess(tmp_path / "cohort", tmp_path / "out", "--backgrounds", str(tmp_path / "more")) == 0
    stacks = read_slices(tmp_path / "out" / "training-1of1.slices")
    assert sorted(int(stack.nodule.sum()) for stack in stacks) == [16, 32]


def test_a_seg_that_was_exported_comes_back_as_it_was(tmp_path: Path) -> None:
    slices = [dcmread(path) for path in ct_series(tmp_path / "ct", slices=5)]
    labels = np.zeros((5, 16, 16))
    labels[1:4, 3:9, 2:5], labels[1:3, 3:9, 5:7] = 1, 2  # they touch
    found = replace(mask(labels, spacing_mm=(2.5, 0.7, 0.7)), content_hash="ef" * 32)
    write_segmentation(tmp_path / "ct" / "seg.dcm", found, slices)
    assert preprocess(tmp_path / "ct", tmp_path / "out") == 0
    (reference,) = references(tmp_path / "out")
    assert np.array_equal(reference.labels, labels)
