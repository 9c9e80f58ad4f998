from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from slicestream.figures.charts import Axes, history_charts, line_chart, timeline
from slicestream.figures.facts import Record

AXES = Axes(title="t", x_label="x", y_label="y", y_range=(0.0, 1.0))


def record(start_s: float, end_s: float) -> Record:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    return Record(
        step="train",
        site="hpc",
        host="node",
        device="cpu",
        start=begin + timedelta(seconds=start_s),
        end=begin + timedelta(seconds=end_s),
        seconds=end_s - start_s,
        items=0,
        unit="",
        bytes_in=0,
        bytes_out=0,
        inputs={},
        outputs={},
        versions={},
    )


def test_a_line_from_corner_to_corner_spans_the_plot() -> None:
    svg = str(line_chart({"a": [(0.0, 0.0), (10.0, 1.0)]}, AXES))
    assert 'points="56.0,254.0 544.0,16.0"' in svg


def test_a_constant_line_still_has_an_axis() -> None:
    svg = str(line_chart({"a": [(3.0, 0.5)]}, Axes(title="t", x_label="x", y_label="y")))
    assert "nan" not in svg
    assert re.search(r'points="[\d.]+,[\d.]+"', svg)


def test_no_points_make_no_chart() -> None:
    assert line_chart({"a": []}, AXES) == ""
    assert history_charts({}) == []
    assert history_charts({"epoch": [], "loss": []}) == []


def test_losses_and_scores_stand_in_two_charts_and_gaps_are_left_out() -> None:
    charts = history_charts(
        {"epoch": [1, 2], "training_loss": [0.9, None], "validation_iou": [0.1, 0.4], "seconds": [3, 3]}
    )
    assert len(charts) == 2
    assert charts[0].count("<circle") == 1
    assert charts[1].count("<circle") == 2
    assert "seconds" not in "".join(charts)


def test_bars_lie_where_the_steps_ran() -> None:
    bars = timeline([record(0, 25), record(50, 100), record(100, 100)])
    assert bars[0] == (0.0, 25.0)
    assert bars[1] == (50.0, 50.0)
    assert bars[2] == pytest.approx((99.4, 0.6))
    assert timeline([]) == []
