from __future__ import annotations

import pytest

from slicestream.figures.plots import calibration, froc, sensitivity, training, volumes, wilson


def candidate(score: float | None, status: str) -> dict[str, object]:
    return {"score": score, "status": status}


def test_wilsons_interval_is_the_published_one() -> None:
    # Newcombe 1998, table I: 81 of 263 and 0 of 20
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_calibration_is_the_share_of_nodules_in_each_tenth_of_the_score() -> None:
    rows = [candidate(0.91, "true_positive")] * 3 + [candidate(0.99, "false_positive")]
    rows += [candidate(0.55, "false_positive")] * 6 + [candidate(1.0, "candidate"), candidate(None, "missed")]
    low, high = calibration(rows)
    assert (low["score"], low["value"], low["count"]) == (pytest.approx(0.55), 0.0, 6)
    assert (high["score"], high["value"], high["count"]) == (pytest.approx(0.93), 0.75, 4)
    assert high["low"] < 0.75 < high["high"]


def test_a_score_of_one_is_in_the_last_tenth_and_few_candidates_say_nothing() -> None:
    assert calibration([candidate(1.0, "true_positive")] * 9) == []
    (only,) = calibration([candidate(1.0, "true_positive")] * 10)
    assert only["value"] == 1.0


def test_volumes_are_those_of_bland_and_altman() -> None:
    nodules = [
        {"label": 4, "volume_mm3": 100.0, "found_mm3": 300.0},
        {"label": 5, "volume_mm3": 80.0, "found_mm3": None},
    ]
    case = {"patient": "p", "series": "s", "nodules": nodules}
    metrics = {"cases_detail": [case], "volume_error": {"count": 1, "bias": 100.0, "low": None, "high": None}}
    found = volumes(metrics, {("p", "s", 4): "n-7"})
    assert found == {
        "points": [{"mean": 200.0, "difference": 100.0, "row": "n-7"}],
        "bias": 100.0,
        "low": None,
        "high": None,
    }
    assert volumes({**metrics, "cases_detail": [{**case, "nodules": nodules[1:]}]}, {}) is None


def test_losses_and_scores_stand_in_two_plots_and_gaps_are_left_out() -> None:
    found = training({"epoch": [1, 2], "training_loss": [0.9, None], "validation_iou": [0.1, 0.4], "seconds": [3, 3]})
    assert found == {
        "loss": [{"line": "training loss", "epoch": 1, "value": 0.9}],
        "agreement": [
            {"line": "validation IoU", "epoch": 1, "value": 0.1},
            {"line": "validation IoU", "epoch": 2, "value": 0.4},
        ],
    }
    assert training({}) == training({"epoch": [], "loss": []}) == {}


def test_froc_has_the_curve_and_the_rates_and_sizes_have_their_counts() -> None:
    interval = {"value": 0.5, "low": 0.25, "high": 0.75}
    sizes = dict.fromkeys(("all", "under_3", "3-6", "6-10", "10-30", "30+"), interval)
    metrics = {
        "froc": [
            {"threshold": 0.9, "sensitivity": 0.5, "false_positives_per_scan": 0.1},
            {"threshold": 0.8, "sensitivity": None, "false_positives_per_scan": 0.2},
        ],
        "operating_points": {"0.125": interval, "8": {"value": None, "low": None, "high": None}, "mean": interval},
        "nodules": {
            "count": 9,
            "counts": {"under_3": 0, "3-6": 1, "6-10": 3, "10-30": 5, "30+": 0},
            "intervals": {"sensitivity": sizes},
        },
    }
    found = froc(metrics)
    assert found is not None
    assert found["points"] == [{"rate": 0.1, "sensitivity": 0.5, "threshold": 0.9}]
    assert found["rates"] == [{"rate": 0.125, **interval}]
    assert froc({**metrics, "froc": []}) is None
    assert [(size["size"], size["count"]) for size in sensitivity(metrics)][:4] == [
        ("all sizes", 9),
        ("under 3 mm", 0),
        ("3 to < 6 mm", 1),
        ("6 to < 10 mm", 3),
    ]
