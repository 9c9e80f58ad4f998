import numpy as np
import pytest

from made import mask, reference
from slicestream.volumes.metrics import compare
from slicestream.volumes.scores import summarise


def labels(*spans):
    array = np.zeros((4, 40, 40), np.uint16)
    for label, span in enumerate(spans, start=1):
        array[span] = label
    return array


def case(found, drawn, *, scores=None, patient=1, series=1):
    return compare(
        mask(found, scores, patient=patient, series=series), reference(drawn, patient=patient, series=series)
    )


def values(block):
    return {name: figure["value"] for name, figure in block.items()}


def test_each_definition_gives_its_hand_computed_value():
    # slice 0: 10 predicted, 10 drawn, 5 shared; slice 1: 5 predicted only; slice 2: 4 drawn and found; slice 3: nothing
    found = labels(np.s_[0, 0, 0:10], np.s_[1, 20, 0:5], np.s_[2, 30, 0:4])
    drawn = labels(np.s_[0, 0, 5:15], np.s_[2, 30, 0:4])
    summary = summarise([case(found, drawn)], split="test")
    assert values(summary["iou"]) == pytest.approx(
        {
            "pooled": 9 / 24,
            "per_slice": (5 / 15 + 0 + 1) / 3,
            "per_slice_empty_is_one": (5 / 15 + 0 + 1 + 1) / 4,
            "per_slice_annotated": (5 / 15 + 1) / 2,
            "per_case": 9 / 24,
        },
        abs=1e-6,
    )
    assert values(summary["dice"]) == pytest.approx(
        {
            "pooled": 18 / 33,
            "per_slice": (0.5 + 0 + 1) / 3,
            "per_slice_empty_is_one": (0.5 + 0 + 1 + 1) / 4,
            "per_slice_annotated": (0.5 + 1) / 2,
            "per_case": 18 / 33,
        },
        abs=1e-6,
    )
    assert (summary["split"], summary["cases"], summary["slices"], summary["slices_annotated"]) == ("test", 1, 4, 2)


def test_series_empty_in_both_counts_per_slice_as_one_and_per_case_not_at_all():
    hit = labels(np.s_[0, 0, 0:10])
    summary = summarise([case(hit, hit), case(labels(), labels(), patient=2, series=2)], split="all")
    assert values(summary["iou"])["per_case"] == 1.0
    assert values(summary["iou"])["per_slice_empty_is_one"] == 1.0
    assert values(summary["iou"])["per_slice"] == 1.0


def test_nothing_at_all_gives_null_and_no_division():
    empty = summarise([case(labels(), labels())], split="all")
    assert values(empty["iou"])["pooled"] is None
    assert empty["nodules"]["sensitivity"] == dict.fromkeys(["all", "under_3", "3-6", "6-10", "10-30", "30+"])
    assert empty["nodules"]["false_positives_per_scan"] == 0.0
    none = summarise([], split="all")
    assert none["nodules"]["false_positives_per_scan"] is None
    assert none["froc"] == []


def test_nodules_fall_into_bins_that_hold_their_lower_bound():
    # rows of 2, 3, 6, 10, 30 pixels of 1 mm: diameters 2, 3, 6, 10, 30 mm
    drawn = labels(*(np.s_[1, row * 5, 0:width] for row, width in enumerate([2, 3, 6, 10, 30])))
    found = labels(np.s_[1, 0, 0:2], np.s_[1, 10, 0:6])
    nodules = summarise([case(found, drawn)], split="test")["nodules"]
    assert nodules["counts"] == {"under_3": 1, "3-6": 1, "6-10": 1, "10-30": 1, "30+": 1}
    assert nodules["sensitivity"] == {"all": 0.4, "under_3": 1.0, "3-6": 0.0, "6-10": 1.0, "10-30": 0.0, "30+": 0.0}
    assert nodules["count"] == 5


def test_froc_of_a_constructed_case_goes_through_its_known_points():
    # two scans, three nodules; scores: hits 0.9 and 0.6, false positives 0.8 and 0.7
    one = case(labels(np.s_[0, 0, 0:5], np.s_[0, 20, 0:5]), labels(np.s_[0, 0, 0:5]), scores={1: 0.9, 2: 0.8}, series=1)
    two = case(
        labels(np.s_[0, 0, 0:5], np.s_[0, 20, 0:5]),
        labels(np.s_[0, 0, 0:5], np.s_[0, 30, 0:5]),
        scores={1: 0.6, 2: 0.7},
        series=2,
    )
    summary = summarise([two, one], split="test")
    points = [(p["threshold"], p["sensitivity"], p["false_positives_per_scan"]) for p in summary["froc"]]
    assert points == [
        (0.9, pytest.approx(1 / 3, abs=1e-6), 0.0),
        (0.8, pytest.approx(1 / 3, abs=1e-6), 0.5),
        (0.7, pytest.approx(1 / 3, abs=1e-6), 1.0),
        (0.6, pytest.approx(2 / 3, abs=1e-6), 1.0),
    ]
    assert summary["nodules"]["false_positives_per_scan"] == 1.0


def test_volume_error_is_relative_to_the_mean_of_both_and_counts_hits_only():
    # 10 drawn, 30 found: 100 %; 10 drawn, 10 found: 0 %; one missed; two candidates on one nodule are added up: 0 %
    found = labels(np.s_[0, 0, 0:30], np.s_[1, 0, 0:10], np.s_[2, 0, 0:4], np.s_[2, 0, 4:10])
    drawn = labels(np.s_[0, 0, 0:10], np.s_[1, 0, 0:10], np.s_[2, 0, 0:10], np.s_[3, 30, 0:10])
    error = summarise([case(found, drawn)], split="test")["volume_error"]
    spread = 1.96 * np.std([100, 0, 0], ddof=1)
    assert error == {
        "count": 3,
        "bias": pytest.approx(100 / 3, abs=1e-6),
        "low": pytest.approx(100 / 3 - spread, abs=1e-6),
        "high": pytest.approx(100 / 3 + spread, abs=1e-6),
    }


def test_one_hit_has_a_volume_error_and_no_limits_and_no_hit_has_none():
    one = summarise([case(labels(np.s_[0, 0, 0:10]), labels(np.s_[0, 0, 0:10]))], split="test")["volume_error"]
    assert one == {"count": 1, "bias": 0.0, "low": None, "high": None}
    none = summarise([case(labels(), labels(np.s_[0, 0, 0:10]))], split="test")["volume_error"]
    assert none == {"count": 0, "bias": None, "low": None, "high": None}


def test_order_of_the_cases_changes_nothing():
    cases = [case(labels(np.s_[0, 0, 0:n]), labels(np.s_[0, 0, 0:10]), patient=n % 3, series=n) for n in range(1, 8)]
    assert summarise(cases, split="all") == summarise(cases[::-1], split="all")


def test_patients_that_are_all_alike_have_an_interval_of_no_width():
    cases = [case(labels(np.s_[0, 0, 0:6]), labels(np.s_[0, 0, 0:10]), patient=n, series=n) for n in range(1, 6)]
    summary = summarise(cases, split="all")
    assert summary["iou"]["pooled"] == {"value": 0.6, "low": 0.6, "high": 0.6}
    assert summary["nodules"]["intervals"]["sensitivity"]["all"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_one_patient_has_a_value_and_no_interval():
    summary = summarise([case(labels(np.s_[0, 0, 0:6]), labels(np.s_[0, 0, 0:10]))], split="all")
    assert summary["iou"]["pooled"] == {"value": 0.6, "low": None, "high": None}


def test_every_figure_has_its_definition():
    summary = summarise([], split="all")
    assert set(summary["iou"]) <= set(summary["definitions"])
    assert {"iou", "dice", "hit", "diameter", "false_positives_per_scan", "froc"} <= set(summary["definitions"])
