from __future__ import annotations

import csv
import io

import numpy as np
import pytest

import output_cases as cases
from slicestream.figures.nodules import COLUMNS, NoduleRow, nodule_rows, nodules_csv
from slicestream.volumes.mask import Mask
from slicestream.volumes.measures import measure


def made_rows(mask: Mask, reference: Mask | None = None) -> list[NoduleRow]:
    volume, origin = cases.volume(), cases.ORIGIN_LPS_MM
    return nodule_rows(volume, mask, reference, origin, found=measure(volume, mask.labels, origin))


def test_a_box_of_known_size_hu_and_place_is_measured() -> None:
    row = made_rows(cases.mask())[0]
    assert (row.nodule, row.status, row.score, row.matched) == (2, "candidate", 0.91, None)
    assert row.volume_mm3 == pytest.approx(48 * 2.5 * 0.7 * 0.8)
    # corner to corner, 3 rows and 5 columns between centres, plus one pixel
    assert row.longest_diameter_mm == pytest.approx(np.hypot(3 * 0.7, 5 * 0.8) + 0.75)
    assert row.mean_hu == 50.0
    centre = (-100.0 + 22.5 * 0.8, -50.5 + 11.5 * 0.7, 30.25 + 1.5 * 2.5)
    assert (row.x_mm, row.y_mm, row.z_mm) == pytest.approx(centre)
    assert (row.slice_first, row.slice_last) == (1, 2)


def test_candidates_and_missed_nodules_get_their_status() -> None:
    rows = made_rows(cases.mask(), cases.reference())
    assert [(row.nodule, row.status, row.matched) for row in rows] == [
        (2, "true_positive", 1),
        (5, "false_positive", None),
        (None, "missed", 7),
    ]
    assert rows[2].score is None
    assert rows[2].volume_mm3 == pytest.approx(12 * 2.5 * 0.7 * 0.8)


def test_the_table_is_sorted_and_rounded_and_empty_where_nothing_is_known() -> None:
    rows = made_rows(cases.mask(), cases.reference())
    text = nodules_csv(reversed(rows))
    assert text == nodules_csv(rows)
    found = list(csv.DictReader(io.StringIO(text)))
    assert tuple(found[0]) == COLUMNS
    assert [row["status"] for row in found] == ["true_positive", "false_positive", "missed"]
    assert found[0]["volume_mm3"] == "67.20"
    assert found[0]["score"] == "0.9100"
    assert (found[2]["nodule"], found[2]["score"]) == ("", "")


def test_an_empty_mask_without_reference_has_no_rows() -> None:
    empty = cases.mask(np.zeros(cases.SHAPE, np.uint16))
    assert made_rows(empty) == []
    assert nodules_csv([]) == ",".join(COLUMNS) + "\n"
