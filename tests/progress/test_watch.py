"""A run that tells what happens, and `slicestream watch` that reads it: while it goes on, once it has ended, killed."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slicestream.__main__ import main
from slicestream.progress.following import Follower
from slicestream.progress.lines import parse
from slicestream.progress.screen import clock
from slicestream.progress.telling import Teller

EPOCH = (
    "train: epoch {}/18, loss 0.3, validation loss 0.2, Dice 0.9, IoU 0.8 (per slice 0.7), 33.1 images/s, "
    "0:01:{:02d} left at most\n"
)
VOLUME = "infer: volume 2/3, 120 slices: 60 done, 5.1 slices/s\n"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Teller]:
    """A run `hybrid` of this process, which holds its lock, as environments/hybrid/run does."""
    with (tmp_path / ".hybrid.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        teller = Teller(tmp_path / ".hybrid.sites/progress")
        teller.tell("run", "0123456789ab")
        teller.tell("job", "/preprocess/0", state="runs", place="laptop")
        teller.tell("job", "/preprocess/0", state="completed")
        teller.tell("job", "/train/0", state="starts", place="hpc")
        yield teller


def printed(run: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """What a pipe gets: all that has happened until the end of the run."""
    assert main(["watch", str(run), *flags]) == 0
    return capsys.readouterr().out


def test_a_job_in_the_queue_is_shown_with_its_place_and_the_start_that_slurm_expects(
    live: Teller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live.tell(
        "job", "/train/0", state="queued", slurm_job="12", ahead=3, expected="2026-01-02T03:04:05", reason="Priority"
    )
    assert "queued as Slurm job 12, 3 ahead (Priority)" in printed(tmp_path / "hybrid", capsys, "--once")
    live.tell("end", status="stopped")
    shown = printed(tmp_path / "hybrid", capsys)
    assert "/train/0: queued as Slurm job 12, 3 ahead (Priority), start expected 2026-01-02T03:04:05 on hpc" in shown
    assert "/preprocess/0: completed on laptop" in shown


def test_training_and_inference_are_followed_from_what_they_print(
    live: Teller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live.tell("job", "/train/0", state="runs", slurm_job="12")
    live.log("/train/0", EPOCH.format(3, 40).encode())
    live.log("/train/0", EPOCH.format(4, 30).encode())
    live.tell("job", "/infer/1", state="runs", place="cloud")
    live.log("/infer/1", VOLUME.encode())
    live.tell("end", status="completed")
    events = [json.loads(line) for line in printed(tmp_path / "hybrid", capsys, "--json").splitlines()]
    progress = {event["about"]: event for event in events if event["event"] == "progress"}
    assert progress["/train/0"]["share"] == pytest.approx(4 / 18, abs=1e-4)
    assert 80 < progress["/train/0"]["left_s"] <= 90
    assert progress["/train/0"]["text"].startswith("epoch 4/18, loss 0.3")
    assert progress["/infer/1"]["share"] == 0.5
    assert progress["/infer/1"]["text"] == "volume 2/3, 5.1 slices/s"


def test_what_is_told_twice_is_one_event(live: Teller, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        live.tell("job", "/train/0", state="runs", slurm_job="12")
    live.tell("end", status="completed")
    assert printed(tmp_path / "hybrid", capsys).count("/train/0: runs") == 1


def test_a_site_out_of_reach_is_named_until_it_is_back(live: Teller, tmp_path: Path) -> None:
    follower = Follower(tmp_path / "hybrid")
    live.tell("site", "asking Slurm on hpc", state="out of reach", why="gpu01: Connection lost")
    assert [event["event"] for event in follower.news()][-1] == "site"
    assert follower.run.out_of_reach == {"asking Slurm on hpc": "gpu01: Connection lost"}
    live.tell("site", "asking Slurm on hpc", state="back")
    assert len(list(follower.news())) == 1
    assert not follower.run.out_of_reach


def test_half_a_line_is_left_until_it_is_whole(live: Teller, tmp_path: Path) -> None:
    follower, events = Follower(tmp_path / "hybrid"), tmp_path / ".hybrid.sites/progress/events.jsonl"
    list(follower.news())
    with events.open("a") as file:
        file.write('{"time": 1, "event": "job", "about": "/inf')
    assert list(follower.news()) == []
    with events.open("a") as file:
        file.write('er/0", "state": "runs"}\n')
    assert [event["about"] for event in follower.news()] == ["/infer/0"]


def test_a_finished_run_is_shown_from_the_folder_that_it_was_given(
    live: Teller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live.log("/train/0", b"one\ntwo\n")
    live.tell("job", "/train/0", state="completed")
    live.tell("end", status="completed")
    follower = Follower(tmp_path / "hybrid")
    list(follower.news())
    (tmp_path / ".hybrid.sites").rename(tmp_path / "hybrid")
    assert list(follower.news()) == []
    assert follower.over()
    assert printed(tmp_path, capsys).splitlines()[-1].endswith("run completed")
    assert printed(tmp_path / "hybrid", capsys, "--log", "train/0") == "one\ntwo\n"


def test_a_killed_run_is_not_taken_for_one_that_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".hybrid.lock").touch()
    Teller(tmp_path / ".hybrid.sites/progress").tell("job", "/train/0", state="runs", place="hpc")
    assert printed(tmp_path / "hybrid", capsys).splitlines()[-1].endswith("run killed")


def test_a_run_without_sites_is_shown_from_its_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = tmp_path / "demo/records"
    records.mkdir(parents=True)
    for number, step in enumerate(("split", "train")):
        times = {"start": f"2026-01-01T00:0{number}:00+00:00", "end": f"2026-01-01T00:0{number}:30+00:00"}
        (records / f"{step}.run.json").write_text(json.dumps({"step": step, "site": "laptop", **times}))
    shown = [line.partition(" ")[2] for line in printed(tmp_path / "demo", capsys).splitlines()]
    assert shown == [
        "/split: runs on laptop",
        "/split: completed on laptop",
        "/train: runs on laptop",
        "/train: completed on laptop",
        "run completed",
    ]


def test_what_another_machine_says_cannot_steer_the_terminal(
    live: Teller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live.log("/train/0", b"\x1b]0;owned\x07line\n")
    live.tell("site", "hpc", state="out of reach", why="\x1b[2Jgone")
    live.tell("end", status="completed")
    for flags in ((), ("--once",), ("--log", "train/0")):
        assert "\x1b" not in printed(tmp_path / "hybrid", capsys, *flags)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("nothing",), "nothing: no run; need the folder of a run, or one that holds runs. Give runs/<name>."),
        (("hybrid", "--once", "--log", "export"), "need a job that ran on a site: train-0."),
    ],
)
def test_what_is_not_there_is_one_line(
    given: tuple[str, ...], said: str, live: Teller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live.log("/train/0", b"x\n")
    assert main(["watch", str(tmp_path / given[0]), *given[1:]]) == 2
    assert capsys.readouterr().err.rstrip().endswith(said)


def test_a_folder_that_is_full_does_not_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "progress").write_text("a file where the folder should be")
    Teller(tmp_path / "progress").tell("run", "0123456789ab")


@pytest.mark.parametrize("line", ["", "train: epoch x/18", "infer: volume 1/2, 30 slices", "Traceback (most recent"])
def test_other_lines_say_nothing_of_progress(line: str) -> None:
    assert parse(line) is None


def test_times_are_hours_minutes_seconds() -> None:
    assert [clock(seconds) for seconds in (0, 65.4, 3600, None)] == ["0:00:00", "0:01:05", "1:00:00", "–"]


def test_a_terminal_gets_one_screen_that_is_kept_up_until_the_end(live: Teller, tmp_path: Path) -> None:
    live.tell("job", "/train/0", state="runs", slurm_job="12")
    live.log("/train/0", EPOCH.format(3, 40).encode())
    inner, outer = pty.openpty()
    command = [sys.executable, "-m", "slicestream", "watch", str(tmp_path / "hybrid")]
    environment = os.environ | {"NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "140", "LINES": "40"}
    with subprocess.Popen(command, stdout=outer, env=environment) as watching:
        os.close(outer)
        shown = b""
        while b"epoch 3/18" not in shown:
            shown += os.read(inner, 65536)
        live.log("/train/0", EPOCH.format(4, 30).encode())
        live.tell("end", status="completed")
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                shown += os.read(inner, 65536)
            except OSError:  # the other side has closed
                break
        assert watching.wait(timeout=30) == 0
    text = shown.decode()
    assert "runs as Slurm job 12" in text
    assert "epoch 4/18" in text
    assert "completed" in text
