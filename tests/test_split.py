"""split: by patient over all shares, the shards, the table and the CWL outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ct_files import change, ct_series, read_rows, unitochest, write_table
from slicestream import split as split_step
from slicestream.__main__ import main
from slicestream.volumes.slices import read_slices


def preprocess(cohort: Path, out: Path, *options: str) -> Path:
    key = out.parent / "key"
    key.write_text("a secret of the tests only\n")
    arguments = ["--cohort", str(cohort), "--pseudonym-key", str(key), "--out", str(out), *options]
    assert main(["preprocess", *arguments]) == 0
    return out


def split(inputs: list[Path], out: Path, *options: str) -> int:
    slices = [str(path) for folder in inputs for path in folder.glob("*.slices")]
    indexes = [str(path) for folder in inputs for path in folder.glob("series-*.json")]
    return main(["split", "--slices", *slices, "--indexes", *indexes, "--out", str(out), *options])


def load(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve patients in two shares; patients 1 and 2 of the table are one person with two studies."""
    folder = tmp_path_factory.mktemp("shares")
    cohort = unitochest(folder / "cohort", patients=12, slices=6, marked=3)
    rows = read_rows(cohort)
    write_table(
        cohort, [row | ({"patientID": "0001", "exam": "2"} if row["patientID"] == "0002" else {}) for row in rows]
    )
    for path in (cohort / "images" / "patient_0002").rglob("*.dcm"):
        change(path, PatientID="P1")
    return [preprocess(cohort, folder / f"share{i}", "--share", f"{i}/2") for i in (1, 2)]


def test_no_patient_is_on_two_sides_over_shares_and_studies(shares: list[Path], tmp_path: Path) -> None:
    assert split(shares, tmp_path) == 0
    sides = load(tmp_path / "split.json")["patients"]
    assert len(sides) == 11
    packed = {
        side: {stack.id.patient for path in tmp_path.glob(f"{side}-*.slices") for stack in read_slices(path)}
        for side in ("training", "validation")
    }
    assert not packed["training"] & packed["validation"]
    for side, patients in packed.items():
        assert {patient for patient, where in sides.items() if where == side} == patients


def test_the_table_counts_what_is_packed(shares: list[Path], tmp_path: Path) -> None:
    assert split(shares, tmp_path) == 0
    table = {row["side"]: row for row in load(tmp_path / "split.json")["table"]}
    assert sum(row["patients"] for row in table.values()) == 11
    assert sum(row["series"] for row in table.values()) == 12
    for side in ("training", "validation"):
        stacks = [stack for path in tmp_path.glob(f"{side}-*.slices") for stack in read_slices(path)]
        assert len(stacks) == table[side]["series"]
        assert sum(len(stack.hu) for stack in stacks) == table[side]["images"]
    assert min(row["patients"] for row in table.values()) >= 2


def test_is_test_follows_the_order_of_each_index(shares: list[Path], tmp_path: Path) -> None:
    assert split(shares, tmp_path) == 0
    ports, sides = load(tmp_path / "cwl.output.json"), load(tmp_path / "split.json")["patients"]
    for flags, folder in zip(ports["is_test"], shares, strict=True):
        (index,) = folder.glob("series-*.json")
        assert flags == [sides[entry["patient"]] == "test" for entry in load(index)["series"]]
    assert any(any(flags) for flags in ports["is_test"])
    for port in ("training", "validation"):
        assert [file["path"] for file in ports[port]] == [p.name for p in sorted(tmp_path.glob(f"{port}-*.slices"))]
    assert ports["split"] == {"class": "File", "path": "split.json"}
    assert (tmp_path / ports["run_record"]["path"]).exists()


def test_the_order_of_inputs_changes_no_shard(shares: list[Path], tmp_path: Path) -> None:
    assert split(shares, tmp_path / "a") == 0
    assert split(shares[::-1], tmp_path / "b") == 0
    for path in (tmp_path / "a").glob("*.slices"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert load(tmp_path / "a" / "split.json") == load(tmp_path / "b" / "split.json")


def test_shards_are_cut_at_their_size(shares: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_step, "SHARD_BYTES", 6000)
    assert split(shares, tmp_path) == 0
    paths = sorted(path.name for path in tmp_path.glob("training-*.slices"))
    assert paths == [f"training-{k:03d}.slices" for k in range(len(paths))]
    assert len(paths) >= 2
    names = [str(stack.id) for path in sorted(tmp_path.glob("training-*")) for stack in read_slices(path)]
    assert len(names) == len(set(names)) == load(tmp_path / "split.json")["table"][0]["series"]


def test_the_table_is_printed(shares: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert split(shares, tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["training", "validation", "test", "sum"]
    assert lines[4].split()[1:3] == ["11", "12"]
    assert lines[5] == "0 patients excluded; 0 without an annotated slice, on no side"


def test_excluded_and_unannotated_patients_are_counted_and_on_no_side(tmp_path: Path) -> None:
    cohort = unitochest(tmp_path / "cohort", patients=6)
    rows = read_rows(cohort)
    write_table(cohort, [row | ({"mask": ""} if row["patientID"] == "0002" else {}) for row in rows])
    (tmp_path / "list").write_text("P1\n")
    shares = [preprocess(cohort, tmp_path / i, "--share", f"{i}/2", "--exclude", str(tmp_path / "list")) for i in "12"]
    assert split(shares, tmp_path / "out") == 0
    document = load(tmp_path / "out" / "split.json")
    assert document["excluded_patients"] == 1
    assert document["patients_without_annotation"] == 1
    assert len(document["patients"]) == 4


def test_backgrounds_are_on_the_training_side_and_in_no_row_of_the_table(tmp_path: Path) -> None:
    cohort, more = unitochest(tmp_path / "cohort", patients=6), tmp_path / "more"
    ct_series(more, slices=5, patient="H", series=99)
    out = preprocess(cohort, tmp_path / "shares", "--backgrounds", str(more), "--negatives", "0")
    assert split([out], tmp_path / "out") == 0
    document = load(tmp_path / "out" / "split.json")
    assert document["backgrounds"] == {"series": 1, "images": 5}
    assert sum(row["images"] for row in document["table"]) == 12
    stacks = [stack for path in (tmp_path / "out").glob("training-*.slices") for stack in read_slices(path)]
    (background,) = [stack for stack in stacks if stack.id.patient not in document["patients"]]
    assert len(background.hu) == 5
    assert sum(map(len, load(tmp_path / "out" / "cwl.output.json")["is_test"])) == 6


def refused(capsys: pytest.CaptureFixture[str], status: int, out: Path) -> str:
    said = capsys.readouterr()
    line = said.err.splitlines()[-1]
    assert status == 2
    assert line.startswith("slicestream split: ")
    assert not out.exists()
    return line


def test_two_patients_are_refused_and_score_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = [preprocess(unitochest(tmp_path / "cohort", patients=2), tmp_path / "in")]
    line = refused(capsys, split(inputs, tmp_path / "out"), tmp_path / "out")
    assert "2 patients with annotated slices; need 3 or more" in line
    assert "score" in line


def test_a_cohort_without_annotation_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ct_series(tmp_path / "cohort")
    inputs = [preprocess(tmp_path / "cohort", tmp_path / "in")]
    line = refused(capsys, split(inputs, tmp_path / "out"), tmp_path / "out")
    assert "no annotated slice (patients: 1)" in line


def test_slices_of_another_run_are_refused(
    shares: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slices = next(shares[0].glob("*.slices"))
    index = [str(path) for folder in shares for path in folder.glob("series-*.json")]
    out = tmp_path / "out"
    status = main(["split", "--slices", str(slices), "--indexes", *index, "--out", str(out)])
    assert "is in an index but in none of the slices files" in refused(capsys, status, out)
    status = main(["split", "--slices", str(slices), "--indexes", index[1], "--out", str(out)])
    assert "which the indexes do not list so" in refused(capsys, status, out)
    status = main(["split", "--slices", str(slices), "--indexes", index[0], index[0], "--out", str(out)])
    assert "is in two indexes" in refused(capsys, status, out)


def test_a_file_that_is_no_index_is_refused(
    shares: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slices = str(next(shares[0].glob("*.slices")))
    out = tmp_path / "out"
    status = main(["split", "--slices", slices, "--indexes", slices, "--out", str(out)])
    assert "not a readable series index" in refused(capsys, status, out)
