"""The harness of the benchmarks: real processes, known answers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bench
import numpy as np
import pytest
import show
from harness import (
    Claim,
    Comparison,
    Contender,
    ContenderError,
    Sample,
    agrees,
    faster,
    grows,
    less,
    machine,
    measure,
    run,
    shown,
)

ROOT = Path(__file__).parents[2]
TELL = f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks/contenders')!r}); from stopwatch import tell; "


def python(name: str, code: str, **more: Any) -> Contender:
    return Contender(name=name, command=[sys.executable, "-c", code], **more)


def told(name: str, seconds: float, items: float, **facts: float) -> Contender:
    """Return a contender that says how long it took, and writes down that its turn came."""
    wrote = f"open(sys.argv[1] + '/../turns', 'a').write({name!r} + ' '); "
    command = [sys.executable, "-c", f"{TELL}{wrote}tell({seconds}, {items}, **{facts})", "{work}"]
    return Contender(name=name, command=command, libraries=("numpy",))


def comparison(*contenders: Contender, claims: tuple[Claim, ...] = (), unit: str = "slices/s") -> Comparison:
    return Comparison(name="made", how="Made.", unit=unit, contenders=contenders, claims=claims)


def ran(one: Comparison, folder: Path, rounds: int = 2) -> dict[str, Any]:
    lines: list[str] = []
    return run(one, rounds=rounds, work=folder / "work", tell=lines.append)


def sample(seconds: float, items: float, peak_mb: float = 1.0) -> Sample:
    return Sample(seconds=seconds, items=items, wall_s=seconds, cpu_s=seconds, peak_mb=peak_mb, others=0.0)


def test_a_process_is_accounted_for_by_the_kernel(tmp_path: Path) -> None:
    code = "import time; held = bytearray(200_000_000)\nwhile time.process_time() < 0.4: pass"
    found = measure(python("holds", code, items=7), tmp_path / "work")
    assert found.wall_s >= found.cpu_s * 0.9 >= 0.36
    assert 200 < found.peak_mb < 300
    assert (found.seconds, found.items) == (found.wall_s, 7)


def test_the_memory_of_the_harness_is_not_the_contenders(tmp_path: Path) -> None:
    held = np.ones(500_000_000, np.uint8)
    assert measure(python("small", "pass"), tmp_path / "work").peak_mb < 100 < held.nbytes / 1e6


def test_what_a_contender_times_itself_counts_and_its_facts_are_kept(tmp_path: Path) -> None:
    found = measure(told("one", 2.0, 6, iou=0.5), tmp_path / "work")
    assert (found.speed, found.facts, found.wall_s < 2) == (3.0, {"iou": 0.5}, True)


def test_each_call_has_an_empty_folder(tmp_path: Path) -> None:
    code = "import os, sys; assert not os.listdir(sys.argv[1]); open(sys.argv[1] + '/left', 'w')"
    for _ in range(2):
        measure(Contender(name="leaves", command=[sys.executable, "-c", code, "{work}"]), tmp_path / "work")


def test_a_contender_that_fails_is_an_error_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(ContenderError, match=r"bad: failed: the reason"):
        measure(
            python("bad", "import sys; print('more'); print('the reason', file=sys.stderr); sys.exit(3)"),
            tmp_path / "w",
        )


def test_a_contender_that_makes_too_little_is_an_error(tmp_path: Path) -> None:
    code = "import sys, pathlib; [pathlib.Path(sys.argv[1], f'{n}.png').touch() for n in range(3)]"
    command = [sys.executable, "-c", code, "{work}"]
    assert measure(Contender(name="all", command=command, makes=("*.png", 3)), tmp_path / "work").items == 1
    with pytest.raises(ContenderError, match=r"few: made 3 of 4 files \*\.png"):
        measure(Contender(name="few", command=command, makes=("*.png", 4)), tmp_path / "work")


def test_a_machine_that_others_use_is_seen_to_be_busy(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        found = measure(python("sleeps", "import time; time.sleep(1)"), tmp_path / "work")
        other.kill()
    assert show.BUSY < found.others <= 1


def test_contenders_take_turns_in_an_order_that_turns(tmp_path: Path) -> None:
    ran(comparison(*(told(name, 1, 1) for name in "abc")), tmp_path, rounds=3)
    assert (tmp_path / "turns").read_text().split() == list("abc" + "bca" + "cab")


def test_a_claim_holds_by_the_median_ratio_of_the_rounds(tmp_path: Path) -> None:
    claims = (
        faster("speed", "ours", "peer", 4),
        faster("speed", "ours", "peer", 5),
        less("size", "ours", "peer", 0.5, fact="mb"),
    )
    one = comparison(
        told("ours", 1, 8, mb=10, iou=0.98),
        told("peer", 2, 4, mb=40),
        claims=(*claims, agrees("IoU", "ours", 0.99, fact="iou")),
    )
    found = ran(one, tmp_path)["claims"]
    assert [claim["value"] for claim in found] == [4.0, 4.0, 0.25, 0.98]
    assert [claim["holds"] for claim in found] == [True, False, True, False]


def test_two_processes_are_efficient_by_half_of_their_speed_up() -> None:
    claim = faster("two", "two", "one", 0.85, among=2)
    assert claim.value({"one": sample(10, 100), "two": sample(6.25, 100)}) == 0.8


def test_the_spread_is_that_of_the_rounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    speeds = iter((1.0, 2.0, 3.0, 4.0, 5.0))
    claim = Claim(what="", ours="a", peer="a", goal=3.5, value=lambda _: next(speeds), at_most=True)
    (found,) = ran(comparison(told("a", 1, 1), claims=(claim,)), tmp_path, rounds=5)["claims"]
    assert (found["value"], found["low"], found["high"], found["holds"]) == (3.0, 1.2, 4.8, True)


def test_time_that_grows_as_a_power_has_it_as_its_exponent() -> None:
    rounds = {str(n): sample(2 * n**1.2, n, peak_mb=300) for n in (1, 10, 100)}
    assert grows("", list(rounds), 1.05, of="seconds").value(rounds) == pytest.approx(1.2)
    assert grows("", list(rounds), 1.05, of="peak_mb").value(rounds) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("speed", "unit", "text"),
    [
        (509.4, "slices/s", "509 slices/s"),
        (0.0123, "images/s", "0.0123 images/s"),
        (4.0, "s", "0.250 s"),
        (0.01, "s per 300 slices", "100 s per 300 slices"),
    ],
)
def test_a_speed_has_three_digits_and_a_duration_is_its_reciprocal(speed: float, unit: str, text: str) -> None:
    assert shown(speed, unit) == text


@pytest.fixture
def results(tmp_path: Path) -> dict[str, Any]:
    claims = (faster("preprocess", "ours", "peer", 3), agrees("IoU", "ours", 0.99, fact="iou"))
    measured = ran(comparison(told("ours", 1, 8, iou=0.5), told("peer", 2, 4), claims=claims), tmp_path)
    for part in measured["contenders"].values():
        part["others"] = 0.01
    return {
        "preprocess": {**measured, "machine": machine()},
        "transfers": {"how": "", "missing": "the sites are not up"},
    }


def test_the_table_has_every_claim_and_what_was_not_measured(results: dict[str, Any]) -> None:
    rows = show.table(results).splitlines()
    assert rows[2] == "| preprocess | 8.00 slices/s | peer | 2.00 slices/s | 4.00 | 4.00 to 4.00 | ≥ 3 | yes |"
    assert rows[3] == "| IoU |  |  |  | 0.50 | 0.50 to 0.50 | ≥ 0.99 | **no** |"
    assert rows[4].endswith("| not measured: the sites are not up |")
    results["preprocess"]["contenders"]["peer"]["others"] = 0.3
    assert "yes (others took 30% of the CPU)" in show.table(results)


def test_the_page_gets_table_plot_and_methods_and_keeps_the_rest(results: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"Before.\n\n{show.BEGIN}\n\nstale\n\n{show.END}\n\nAfter.\n")
    show.write_page(page, results)
    once, drawn = page.read_text(), page.with_suffix(".svg").read_bytes()
    assert once.startswith(f"Before.\n\n{show.BEGIN}\n\n| what |")
    assert once.endswith(f"{show.END}\n\nAfter.\n")
    assert "stale" not in once
    assert "(performance.svg)" in once
    assert f"- **preprocess**: Made. 2 rounds; numpy {version('numpy')}." in once
    assert b"<svg" in drawn
    show.write_page(page, results)
    assert (page.read_text(), page.with_suffix(".svg").read_bytes()) == (once, drawn)


def test_the_growth_of_a_step_is_drawn_beside_the_ratios(tmp_path: Path) -> None:
    counts = ("1 patients", "10 patients")
    claims = (grows("growth, split: time", counts, 1.05, of="seconds"),)
    grown = ran(comparison(told(counts[0], 1, 1), told(counts[1], 9, 10), claims=claims), tmp_path)
    show.plot(tmp_path / "plot.svg", {"growth-split": grown, "growth-infer": {"how": "", "missing": "not here"}})
    assert "peak memory, MB" in svg_words(tmp_path / "plot.svg")
    assert "growth, split: time" not in svg_words(tmp_path / "plot.svg")


def svg_words(path: Path) -> str:
    """Return the texts of a drawing: matplotlib keeps them as comments beside their outlines."""
    return " ".join(re.findall(r"<!-- (.*?) -->", path.read_text()))


def test_our_page_has_the_markers() -> None:
    text = (ROOT / "docs/performance.md").read_text()
    assert text.index(show.BEGIN) < text.index(show.END)


@pytest.mark.parametrize(
    "words", [["--size", "trial", "--page", "p.md"], ["--rounds", "4", "--page", "p.md"], ["--only", "nonsense"]]
)
def test_what_is_no_measurement_is_refused(words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "benchmarks/bench.py", "--out", tmp_path, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: " in done.stderr


def test_inputs_that_cannot_be_made_are_told_and_the_next_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_room(*_: object) -> list[Comparison]:
        raise OSError("no room")

    def one_made(*_: object) -> list[Comparison]:
        return [comparison(python("made", "pass"))]

    for name, comparisons in (("preprocess", no_room), ("growth", one_made)):
        monkeypatch.setitem(sys.modules, f"comparisons.{name}", SimpleNamespace(comparisons=comparisons))
    words = ["--only", "preprocess", "growth", "--size", "trial", "--rounds", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bench.py", *words])
    monkeypatch.setenv("PYTHONPATH", "")
    assert bench.main() == 1
    known = json.loads((tmp_path / "results-trial.json").read_text())
    assert known["preprocess"]["missing"] == "it failed: its inputs cannot be made (no room)"
    assert "made" in known["made"]["contenders"]
    assert "no room" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "comparisons.preprocess", SimpleNamespace(comparisons=one_made))
    assert bench.main() == 0
    assert "preprocess" not in json.loads((tmp_path / "results-trial.json").read_text())
