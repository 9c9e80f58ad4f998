"""KPIs of made records, with answers known by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from slicestream.figures.course import Link
from slicestream.figures.facts import Record
from slicestream.figures.kpis import Figure, figures

BEGIN = datetime(2026, 3, 1, 10, tzinfo=UTC)
CPU = "cpu (2 cores)"


def record(step: str, start: float, end: float, **facts: Any) -> Record:
    """Return a record from `start` to `end`, seconds after BEGIN."""
    usual = {
        "site": "laptop",
        "host": "desk",
        "device": CPU,
        "items": 10,
        "unit": "slices",
        "bytes_in": 0,
        "bytes_out": 0,
    }
    times = {"start": BEGIN + timedelta(seconds=start), "end": BEGIN + timedelta(seconds=end), "seconds": end - start}
    return Record(step=step, **(usual | times | {"inputs": {}, "outputs": {}, "versions": {}} | facts))


def found(records: list[Record], links: tuple[Link, ...] = ()) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures(records, links)}


def test_two_jobs_side_by_side_are_faster_than_one_by_their_sum_over_their_span() -> None:
    all_of = found([record("preprocess", 0, 40), record("preprocess", 0, 30)])
    assert all_of["preprocess: speed-up"].value == 70 / 40
    assert all_of["preprocess: efficiency"].value == 70 / 80
    assert "n = 2 processes on one host" in all_of["preprocess: speed-up"].how
    assert all_of["preprocess: speed-up"].where == f"laptop: {CPU}"


def test_pods_are_replicas_and_one_after_the_other_gains_nothing() -> None:
    all_of = found([record("infer", 0, 10, host="a", site="cloud"), record("infer", 10, 20, host="b", site="cloud")])
    assert all_of["infer: speed-up"].value == 1.0
    assert "2 replicas on 2 hosts" in all_of["infer: speed-up"].how


def test_a_step_of_one_job_has_nothing_to_divide() -> None:
    assert not [name for name in found([record("train", 0, 5)]) if "speed-up" in name]


@pytest.mark.parametrize(
    ("device", "kind"), [("cuda (4 × GPU, bfloat16)", "GPUs"), ("cpu (4 × 2 threads, bfloat16)", "processes")]
)
def test_processes_that_share_batches_have_no_speed_up_without_a_run_of_one(device: str, kind: str) -> None:
    figure = found([record("train", 0, 5, device=device)])[f"train: speed-up over {kind}"]
    assert figure.value is None
    assert figure.how.startswith(f"4 {kind} shared each batch")
    assert "train once with `--processes 1`" in figure.how


def test_times_say_where_and_how_they_were_taken() -> None:
    all_of = found(
        [record("preprocess", 0, 4), record("train", 5, 9, site="hpc", device="cuda"), record("infer", 9, 10)]
    )
    assert [all_of[name].value for name in ("toppi", "totm", "ttmip", "to the first masks")] == [4, 4, 9, 10]
    assert all_of["totm"].where == "hpc: cuda"
    assert all_of["ttmip"].where == f"laptop: {CPU}; hpc: cuda"
    assert all_of["toppi"].how == "sum of the seconds of 1 jobs by their run records"


def test_a_run_without_training_has_no_time_of_it() -> None:
    assert {"totm", "ttmip"}.isdisjoint(found([record("preprocess", 0, 4), record("infer", 5, 6)]))


def test_bytes_are_told_by_link_and_unknown_ones_are_not_made_up() -> None:
    there = Link(source="laptop", destination="hpc", files=2, bytes=30_900_000, seconds=0.3)
    back = Link(source="hpc", destination="laptop", files=7)
    all_of = found([record("train", 0, 5, site="hpc")], (there, back))
    assert all_of["bytes, laptop to hpc"].value == 30_900_000
    assert all_of["bytes, hpc to laptop"].value is None
    assert found([record("train", 0, 5)])["bytes between sites"].value == 0


def test_energy_is_no_counter_where_no_record_has_any() -> None:
    figure = found([record("train", 0, 5)])["energy"]
    assert (figure.value, figure.how) == (None, "no counter")


def test_energy_of_overlapping_jobs_on_one_host_is_counted_once() -> None:
    counted = {"energy_j": 100.0, "energy_from": "RAPL package-0"}
    both = [record("preprocess", 0, 10, **counted), record("preprocess", 5, 15, **counted)]
    assert found(both)["energy, laptop"].value == pytest.approx(150)
    apart = [record("infer", 0, 10, host=host, **counted) for host in ("a", "b")]
    assert found(apart)["energy, laptop"].value == pytest.approx(200)
    assert "RAPL package-0: the whole machine's while infer ran" in found(apart)["energy, laptop"].how
