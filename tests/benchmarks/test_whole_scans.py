"""What is recorded of trainings of other days, and the table made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import show
import whole_scans
from harness import machine
from whole_scans import COLUMNS, digest_of


def entry(variant: str, seed: int, value: float | None, **more: Any) -> dict[str, Any]:
    run = {"variant": variant, "left_out": "C3N-00249", "seed": seed, "recipe": digest_of(variant, 12), "epochs": 12}
    return {**run, "machine": machine(), "figures": dict.fromkeys(COLUMNS, value), **more}


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(whole_scans, "RECORDED", tmp_path / "whole-scans.json")
    return tmp_path / "whole-scans.json"


def test_the_table_has_the_mean_over_seeds_and_leaves_out_what_another_recipe_gave(recorded: Path) -> None:
    runs = [entry("plain", 0, 2.0), entry("plain", 1, 5.0), entry("default", 0, 7.0, recipe="another")]
    gone = {**entry("plain", 0, 1.0), "variant": "of another day"}
    recorded.write_text(json.dumps([*runs, entry("context", 0, None), gone]))
    rows = [line.split(" | ") for line in whole_scans.table().splitlines() if line.startswith("| ")]
    assert [row[:5] for row in rows[2:]] == [
        ["| plain", "C3N-00249", "12", "0 1", "3.5 (2 to 5)"],
        ["| context", "C3N-00249", "12", "0", "none in 1 of 1"],
    ]
    assert len({len(row) for row in rows}) == 1


def test_a_run_takes_the_place_of_the_same_one_before(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded.write_text(json.dumps([entry("plain", 0, 2.0), entry("default", 0, 7.0)]))
    monkeypatch.setattr(whole_scans, "row", lambda *_: [3.0] * len(COLUMNS))
    for name, seed in (("default", 0), ("plain", 1)):
        whole_scans.record(Path(), name, "C3N-00249", seed=seed, epochs=12)
    figures = [(run["variant"], run["seed"], run["figures"][COLUMNS[0]]) for run in whole_scans.recorded()]
    assert figures == [("plain", 0, 2.0), ("plain", 1, 3.0), ("default", 0, 3.0)]


def test_what_changes_the_training_or_the_look_at_a_scan_changes_its_digest() -> None:
    digests = [digest_of(name, 12) for name in whole_scans.VARIANTS] + [digest_of("default", 26)]
    assert len(set(digests)) == len(digests)


def test_only_what_is_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{whole_scans.BEGIN}\n\nold\n\n{show.END}\nafter\n")
    show.replace(page, whole_scans.BEGIN, "new")
    assert page.read_text() == f"before\n{whole_scans.BEGIN}\n\nnew\n\n{show.END}\nafter\n"
    page.write_text("no marks\n")
    with pytest.raises(AssertionError, match=r"page\.md: 0 places"):
        show.replace(page, whole_scans.BEGIN, "new")
    assert page.read_text() == "no marks\n"
