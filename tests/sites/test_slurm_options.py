"""What Slurm's options and answers mean, after the manual pages of sbatch and sinfo."""

from __future__ import annotations

import pytest

from slicestream.sites.slurm import _count, _flag, _kind_and_count, _node, megabytes, minutes


@pytest.mark.parametrize(
    ("text", "minutes_of"),
    [
        ("90", 90),
        ("90:30", 90.5),
        ("12:00:00", 720),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("1-00:00:30", 1440.5),
        ("infinite", None),
        ("UNLIMITED", None),
    ],
)
def test_a_time_means_what_sbatch_says(text: str, minutes_of: float | None) -> None:
    assert minutes(text) == minutes_of


@pytest.mark.parametrize(
    ("text", "mb"), [("8000", 8000), ("8G", 8192), ("8gb", 8192), ("1T", 1048576), ("2048K", 2), ("much", None)]
)
def test_a_memory_means_what_sbatch_says(text: str, mb: float | None) -> None:
    assert megabytes(text) == mb


@pytest.mark.parametrize(
    ("text", "asked"), [("2", ("", 2)), ("a100", ("a100", 1)), ("a100:2", ("a100", 2)), ("gpu:a100:4", ("a100", 4))]
)
def test_gpus_are_asked_for_by_number_kind_or_both(text: str, asked: tuple[str, int]) -> None:
    assert _kind_and_count(text) == asked


@pytest.mark.parametrize(
    ("gres", "kind", "count"),
    [
        ("gpu:a100:4(S:0-1)", "", 4),
        ("gpu:a100:4(S:0-1)", "a100", 4),
        ("gpu:a100:4,gpu:v100:2", "v100", 2),
        ("gpu:a100:4,gpu:v100:2", "", 6),
        ("gpu:3", "", 3),
        ("gpu:3", "a100", 0),
        ("(null)", "", 0),
        ("fpga:2", "", 0),
    ],
)
def test_the_gpus_of_a_node_are_counted_by_kind(gres: str, kind: str, count: int) -> None:
    assert _count(gres, kind) == count


@pytest.mark.parametrize(
    ("state", "usable"),
    [("idle", True), ("mixed", True), ("allocated*", True), ("idle~", True), ("drained*", False), ("down", False)],
)
def test_a_node_takes_jobs_by_its_state(state: str, usable: bool) -> None:
    node = _node(f"gpu|up|1-00:00:00|n1|{state}|gpu:a100:1|16000|gpu*|a | b")
    assert node.usable == usable
    assert (node.partition, node.up, node.memory_mb, node.default, node.reason) == ("gpu", True, 16000, True, "a | b")


def test_options_become_flags() -> None:
    assert _flag("cpusPerTask", 2) == ["--cpus-per-task=2"]
    assert _flag("exclusive", True) == ["--exclusive"]
    assert _flag("exclusive", False) == []
