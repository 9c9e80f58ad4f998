import json

import numpy as np
import pytest

from slicestream.volumes.froc import curve, read_off
from slicestream.volumes.metrics import Case, Nodule

NONE = np.zeros(0, np.int64)


def case(hits: list[float | None], misses: list[float], *, patient: int = 1) -> Case:
    """Return a scan whose nodules are hit with these scores (None: not at all), and the false positives' scores."""
    nodules = tuple(Nodule(label=n, diameter_mm=5, volume_mm3=60, score=score) for n, score in enumerate(hits, 1))
    return Case(
        patient=f"{patient}",
        series="1",
        predicted=NONE,
        annotated=NONE,
        shared=NONE,
        nodules=nodules,
        false_positive_scores=tuple(misses),
        candidates=len(misses),
        model_hash="",
    )


def test_operating_points_are_read_off_without_interpolation() -> None:
    # two scans; false positives per scan: 0.5 at 0.8, 1 at 0.6, 2.5 at 0.2; found: 1/4 at 0.9, 2/4 at 0.7, 3/4 at 0.4
    cases = [case([0.9, 0.7], [0.8, 0.2, 0.2]), case([0.4, None], [0.6, 0.2])]
    points = {name: figure["value"] for name, figure in read_off(cases)["operating_points"].items()}
    assert points == {
        **{"0.125": 0.25, "0.25": 0.25, "0.5": 0.5, "1": 0.75, "2": 0.75, "4": 0.75, "8": 0.75},
        "mean": pytest.approx(4.0 / 7, abs=1e-6),
    }


def test_rate_at_a_sensitivity_that_is_not_reached_is_null_and_one_that_is_reached_at_once_is_zero() -> None:
    assert read_off([case([0.9, None], [0.1])])["false_positives_per_scan_at"]["0.85"]["value"] is None
    assert read_off([case([0.9, 0.8], [0.1])])["false_positives_per_scan_at"]["0.85"]["value"] == 0.0
    assert read_off([case([0.9, 0.3], [0.5, 0.4, 0.2])])["false_positives_per_scan_at"]["0.85"]["value"] == 2.0


def test_candidates_of_one_score_are_one_point_of_the_curve() -> None:
    assert curve([case([0.5], [0.5, 0.5])]) == [(0.5, 1.0, 2.0)]


def test_without_nodules_or_scans_there_is_no_figure_and_the_result_is_json() -> None:
    for cases in ([], [case([], [0.3])]):
        answer = read_off(cases)
        assert all(figure["value"] is None for block in answer.values() for figure in block.values())
        json.dumps(answer, allow_nan=False)


def test_interval_has_no_upper_end_where_drawn_patients_never_get_there() -> None:
    cases = [
        case([0.9], [0.5], patient=1),
        case([None], [0.5], patient=2),
        *(case([0.9], [], patient=n) for n in range(3, 9)),
    ]
    figure = read_off(cases, resamples=500)["false_positives_per_scan_at"]["0.85"]
    assert figure == {"value": 0.0, "low": 0.0, "high": None}


def test_patients_that_are_all_alike_have_an_interval_of_no_width() -> None:
    cases = [case([0.9, 0.3], [0.5], patient=n) for n in range(4)]
    answer = read_off(cases, resamples=200)
    assert answer["operating_points"]["1"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert answer["false_positives_per_scan_at"]["0.85"] == {"value": 1.0, "low": 1.0, "high": 1.0}
