"""LUNA16's table: spheres where they should be, of the volume they should have, and marked as spheres."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lidc_files import SERIES, place
from made import ball
from slicestream.dicom.annotations import patches
from slicestream.dicom.annotations.luna16 import read, referenced, series_of
from slicestream.errors import AnnotationError

HEAD = "seriesuid,coordX,coordY,coordZ,diameter_mm"


def table(folder: Path, *rows: str, head: str = HEAD) -> Path:
    path = folder / "annotations.csv"
    path.write_text("\n".join((head, *rows)) + "\n", encoding="utf-8")
    return path


def test_a_sphere_has_the_voxels_whose_centres_lie_in_it(tmp_path: Path) -> None:
    """Index (12, 40, 30) of the place is (-10 + 0.5 x 30, -20 + 0.5 x 40, 100 + 2 x 12) mm."""
    where = place((24, 80, 64))
    drawing = read(table(tmp_path, f"{SERIES},5,0,124,18.4"), where)
    expected = ball((24, 80, 64), (12, 40, 30), 9.2, (2.0, 0.5, 0.5))
    assert np.array_equal(drawing.labels > 0, expected)
    assert drawing.labels.sum() * 0.5 == pytest.approx(4 / 3 * np.pi * 9.2**3, rel=0.02)
    assert [(n.label, n.form) for n in drawing.nodules] == [(1, "sphere")]
    assert drawing.notes == ("nodules that are spheres of a centre and a diameter, no outlines: 1",)


def test_coordinates_are_of_the_patient_whatever_way_the_stack_runs(tmp_path: Path) -> None:
    drawing = read(table(tmp_path, f"{SERIES},-12,-17,94,1"), place(down=True))
    middle = np.argwhere(drawing.labels).mean(axis=0)
    assert middle.tolist() == [3, 6, 4]  # (100 - 94) / 2, (-17 + 20) / 0.5, (-10 + 12) / 0.5


def test_a_sphere_smaller_than_a_voxel_is_the_nearest_voxel(tmp_path: Path) -> None:
    drawing = read(table(tmp_path, f"{SERIES},-7.8,-17.2,102.9,0.1"), place())
    assert np.argwhere(drawing.labels).tolist() == [[1, 6, 4]]


def test_a_sphere_at_the_rim_is_cut_there(tmp_path: Path) -> None:
    drawing = read(table(tmp_path, f"{SERIES},-10,-20,100,8"), place((24, 80, 64)))
    assert np.array_equal(drawing.labels > 0, ball((24, 80, 64), (0, 0, 0), 4, (2.0, 0.5, 0.5)))


def test_of_two_that_overlap_the_smaller_one_has_the_voxels(tmp_path: Path) -> None:
    rows = f"{SERIES},-4,-12,104,2", f"{SERIES},-4,-12,104,8", f"{SERIES},-3,-12,104,8"
    drawing = read(table(tmp_path, *rows), place())
    assert drawing.labels[2, 16, 12] == 1
    assert sorted(np.unique(drawing.labels)) == [0, 1, 2, 3]


def test_a_table_names_the_series_that_have_a_row(tmp_path: Path) -> None:
    path = table(tmp_path, "1.2,0,0,0,5", "1.3,0,0,0,5", "1.2,9,9,9,5")
    assert referenced(path) == ""
    assert series_of(path) == {"1.2", "1.3"}
    with pytest.raises(AnnotationError, match="no row of this series"):
        read(path, place())


def test_another_table_is_none_of_ours(tmp_path: Path) -> None:
    assert referenced(table(tmp_path, "a,b", head="image,label")) is None
    (tmp_path / "candidates.csv").write_text(HEAD)
    assert referenced(tmp_path / "candidates.csv") is None


@pytest.mark.parametrize(
    ("head", "row", "said"),
    [
        ("seriesuid,coordX,coordY,diameter_mm", f"{SERIES},1,1,1", "no column coordZ"),
        (HEAD, f"{SERIES},1,one,1,5", "line 2: could not convert string to float: 'one'"),
        (HEAD, f"{SERIES},1,1,1,", "line 2: could not convert string to float: ''"),
        (HEAD, f"{SERIES},1,1,nan,5", "line 2: seriesuid"),
        (HEAD, f"{SERIES},-9,-19,101,0", "a diameter over 0"),
        (HEAD, f"{SERIES},-9,-19,101,1e9", "a diameter over 0, 500 mm at most"),
        (HEAD, ",-9,-19,101,5", "need a UID"),
        (HEAD, f"{SERIES},9,-19,101,5", "a nodule at slice 0, row 2, column 38 of a series of (6, 32, 32) voxels"),
    ],
)
def test_what_is_no_table_of_nodules_is_refused(tmp_path: Path, head: str, row: str, said: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        read(table(tmp_path, row, head=head), place())
    assert said in str(caught.value)


def test_nodules_that_fill_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "MAX_VOXELS", 3 * 6 * 32 * 32)
    rows = [f"{SERIES},-4,-12,104,400"] * 4
    with pytest.raises(AnnotationError, match="boxes hold over"):
        read(table(tmp_path, *rows), place())
    assert len(read(table(tmp_path, *rows[:3]), place()).nodules) == 3


def test_a_binary_file_of_that_name_is_none_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "annotations.csv"
    path.write_bytes(b"\xff\xfe\x00seriesuid")
    assert referenced(path) is None
    with pytest.raises(AnnotationError, match="not a CSV table in UTF-8"):
        read(path, place())
