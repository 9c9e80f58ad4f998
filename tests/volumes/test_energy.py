from __future__ import annotations

import json
from pathlib import Path

import pytest

from slicestream.volumes import record
from slicestream.volumes.energy import read_counters, used
from slicestream.volumes.record import recorded


def zone(powercap: Path, number: int, microjoules: int, *, name: str = "package", most: int = 9_999_999) -> None:
    """Write a zone as the kernel shows it."""
    folder = powercap / f"intel-rapl:{number}"
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in (("name", f"{name}-{number}"), ("energy_uj", microjoules), ("max_energy_range_uj", most)):
        (folder / file).write_text(f"{text}\n")


def packages(powercap: Path) -> dict[str, object]:
    """Return the readings of RAPL alone: this machine may have a GPU that counts."""
    return {name: counter for name, counter in read_counters(powercap).items() if name.startswith("RAPL")}


def test_two_packages_are_added_in_joules(tmp_path: Path) -> None:
    zone(tmp_path, 0, 1_000_000)
    zone(tmp_path, 1, 500_000)
    before = packages(tmp_path)
    zone(tmp_path, 0, 4_250_000)
    zone(tmp_path, 1, 750_000)
    assert used(before, packages(tmp_path)) == (3.5, "RAPL package-0, RAPL package-1")


def test_a_counter_that_began_again_at_zero_counts_on(tmp_path: Path) -> None:
    zone(tmp_path, 0, 9_500_000)
    before = packages(tmp_path)
    zone(tmp_path, 0, 500_000)
    assert used(before, packages(tmp_path)) == (1.0, "RAPL package-0")


def test_cores_are_not_counted_beside_their_package(tmp_path: Path) -> None:
    zone(tmp_path, 0, 1_000_000)
    zone(tmp_path, 3, 1_000_000, name="core")
    assert list(packages(tmp_path)) == ["RAPL package-0"]


def test_a_machine_without_a_counter_says_so(tmp_path: Path) -> None:
    assert packages(tmp_path / "none") == {}
    assert used({}, {}) == (None, "no counter")


def test_a_record_has_the_joules_of_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path / "powercap", 0, 1_000_000)
    monkeypatch.setattr(record, "read_counters", lambda: packages(tmp_path / "powercap"))
    (tmp_path / "out").mkdir()
    with recorded("train", tmp_path / "out"):
        zone(tmp_path / "powercap", 0, 8_000_000)
    written = json.loads((tmp_path / "out/train.run.json").read_text())
    assert (written["energy_j"], written["energy_from"]) == (7.0, "RAPL package-0")
