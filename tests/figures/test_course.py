from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import made_report
from slicestream.errors import ArtefactError
from slicestream.figures.course import Job, Link, jobs_of, joined, read_sites, timeline
from slicestream.figures.facts import Record
from slicestream.figures.tables import case_rows, command, nodule_rows, parameters

DAY = datetime(2026, 1, 1, tzinfo=UTC)


def record(step: str, start_s: float, end_s: float, site: str = "laptop", **facts: Any) -> Record:
    usual: dict[str, Any] = {"host": "node", "device": "cpu", "items": 0, "unit": "", "bytes_in": 0, "bytes_out": 0}
    usual |= {"start": DAY + timedelta(seconds=start_s), "end": DAY + timedelta(seconds=end_s)}
    usual |= {"seconds": end_s - start_s, "inputs": {}, "outputs": {}, "versions": {}}
    return Record(step=step, site=site, **(usual | facts))


RUN = [
    record("preprocess", 0, 5, outputs={f"{'a' * 16}-{'b' * 16}.volume": "v", "training-1of2.slices": "t"}),
    record("preprocess", 0, 9, outputs={"training-2of2.slices": "u"}),
    record(
        "split", 10, 12, inputs={"training-1of2.slices": "t", "training-2of2.slices": "u"}, outputs={"x.slices": "x"}
    ),
    record("train", 20, 90, "slurm", inputs={"x.slices": "x"}, outputs={"model.onnx": "m"}),
    record("infer", 95, 99, "kubernetes", inputs={"model.onnx": "m", f"{'a' * 16}-{'b' * 16}.volume": "v"}),
]


def test_each_site_is_a_lane_each_job_a_row_and_time_begins_with_the_first() -> None:
    found = timeline(*jobs_of(RUN))
    assert found is not None
    assert found["lanes"] == [
        {"site": "laptop", "first": 0, "last": 3},
        {"site": "slurm", "first": 3, "last": 4},
        {"site": "kubernetes", "first": 4, "last": 5},
    ]
    assert [(bar["step"], bar["row"], bar["start"], bar["end"]) for bar in found["bars"]][2:4] == [
        ("split", 2, 10.0, 12.0),
        ("train", 3, 20.0, 90.0),
    ]
    assert found["end"] == 99.0
    assert timeline([], []) is None


def test_run_records_tell_which_files_went_between_sites_but_not_their_size() -> None:
    _, links = jobs_of(RUN)
    assert links == [
        Link(source="laptop", destination="kubernetes", files=1),
        Link(source="laptop", destination="slurm", files=1),
        Link(source="slurm", destination="kubernetes", files=1),
    ]


def test_steps_are_joined_by_the_hashes_of_their_files() -> None:
    found = joined(RUN)
    assert found is not None
    assert [(node["step"], node["layer"], node["jobs"]) for node in found["nodes"]] == [
        ("preprocess", 0, 2),
        ("split", 1, 1),
        ("train", 2, 1),
        ("infer", 3, 1),
    ]
    assert {(edge["from"], edge["to"]): edge["files"] for edge in found["edges"]} == {
        ("preprocess", "infer"): "volume",
        ("preprocess", "split"): "training.slices",
        ("split", "train"): "x.slices",
        ("train", "infer"): "model.onnx",
    }
    assert joined(RUN[:2]) is None


def test_records_that_bite_their_own_tail_are_still_drawn() -> None:
    found = joined(
        [
            record("a", 0, 1, inputs={"x": "1"}, outputs={"y": "2"}),
            record("b", 0, 1, inputs={"y": "2"}, outputs={"x": "1"}),
        ]
    )
    assert found is not None
    assert len(found["edges"]) == 2


def test_sites_json_gives_jobs_bytes_and_slurm_job(tmp_path: Path) -> None:
    path = tmp_path / "sites.json"
    path.write_text(json.dumps(made_report.SITES))
    jobs, links = read_sites(path)
    assert jobs[0] == Job(step="preprocess", site="laptop", place="laptop", start=1000.0, end=1050.0)
    assert (jobs[1].site, jobs[1].place) == ("hpc", "Slurm job 7")
    assert links[0] == Link(source="laptop", destination="hpc", files=2, bytes=30_900_000, seconds=0.5)
    found = timeline(jobs, links)
    assert found is not None
    assert [(link["source"], link["destination"]) for link in found["links"]] == [("laptop", "hpc"), ("hpc", "cloud")]


@pytest.mark.parametrize("text", ["{}", '{"jobs": [1], "transfers": []}', '{"jobs": [], "transfers": [{"source": 1}]}'])
def test_another_file_than_sites_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sites.json"
    path.write_text(text)
    with pytest.raises(ArtefactError, match=r"no usable record of sites .*; need sites\.json"):
        read_sites(path)


def nodule(status: str, score: float | None = None, longest_diameter_mm: float = 5.0) -> dict[str, Any]:
    return {"status": status, "score": score, "longest_diameter_mm": longest_diameter_mm}


def test_worst_nodules_are_large_missed_then_sure_but_false_then_found_but_unsure() -> None:
    rows = [
        nodule("true_positive", 0.9),
        nodule("missed", None, 4.0),
        nodule("false_positive", 0.6),
        nodule("true_positive", 0.7),
        nodule("missed", None, 9.0),
        nodule("false_positive", 0.8),
    ]
    assert [row["anchor"] for row in nodule_rows(rows)] == ["n-5", "n-2", "n-6", "n-3", "n-4", "n-1"]


def test_worst_cases_overlap_least_and_what_is_empty_in_both_comes_last() -> None:
    def case(series: str, iou: float | None, false_positives: int = 0) -> dict[str, Any]:
        return {"series": series, "iou": iou, "hits": 0, "nodules": [], "false_positives": false_positives}

    cases = [case("a", 0.5), case("b", None), case("c", 0.0, 1), case("d", 0.0, 4)]
    assert [found["series"] for found in case_rows({"cases_detail": cases})] == ["d", "c", "a", "b"]


def test_the_command_repeats_what_the_records_say() -> None:
    run = [
        record("preprocess", 0, 1, parameters={"share": "1/2", "negatives": 0.2}),
        record("preprocess", 0, 1, parameters={"share": "2/2", "negatives": 0.2}),
        record("split", 1, 2, parameters={"seed": 0}),
        record("train", 2, 3, parameters={"recipe": {"name": "x; rm -r y", "epochs": 4}}),
        record("infer", 3, 4, parameters={"flips": True, "threshold": 0.5, "min_score": None}),
    ]
    assert dict(parameters(run)["preprocess"]) == {"share": ["1/2", "2/2"], "negatives": 0.2}
    assert " ".join(command(run, scored=True)) == (
        "cwltool --no-container workflows/main.cwl --cohort COHORT --pseudonym_key KEY --negatives 0.2 --seed 0 "
        "--recipe 'x; rm -r y' --epochs 4 --threshold 0.5 --flips"
    )
    assert command(run[4:], scored=False)[1:5] == [
        "workflows/segment.cwl",
        "--cohort COHORT",
        "--pseudonym_key KEY",
        "--model MODEL",
    ]
