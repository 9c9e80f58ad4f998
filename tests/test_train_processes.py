"""`train` with several processes: started, ended and told of as one command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from disc_slices import write_sides
from slicestream.errors import OptionError
from slicestream.learning.launch import Nodes, first_host, processes_here

EPOCHS = 4


def command(folder: Path, out: Path, *more: str, epochs: int = EPOCHS) -> list[str]:
    training, validation = folder / "training-000.slices", folder / "validation-000.slices"
    flags = ["--training", str(training), "--validation", str(validation), "--recipe", "phantom", "--device", "cpu"]
    flags += ["--epochs", str(epochs), "--threads", "1", "--checkpoints", str(folder / "scratch"), "--out", str(out)]
    return [sys.executable, "-m", "slicestream", "train", *flags, *more]


def started(argv: list[str], **more: str) -> subprocess.Popen[str]:
    """Start a command as the first of a process group, as a shell does."""
    return subprocess.Popen(
        argv, env={**os.environ, **more}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def told(process: subprocess.Popen[str], word: str) -> None:
    """Read what a process says until a word comes."""
    assert process.stderr is not None
    assert any(word in line for line in process.stderr)


def trainers(process: subprocess.Popen[str]) -> list[int]:
    """Return the processes that one has started to train."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def alive(pids: list[int], *, patience_s: float = 30.0) -> list[int]:
    """Return which processes are left when all have had time to end."""
    end = time.monotonic() + patience_s
    while pids and time.monotonic() < end:
        time.sleep(0.1)
        with suppress(FileNotFoundError):
            pids = [pid for pid in pids if Path(f"/proc/{pid}").exists() and _state(pid) != "Z"]
    return pids


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sides")
    write_sides(folder, slices=4)
    return folder


def test_a_process_that_dies_ends_all_and_another_number_of_them_goes_on(sides: Path, tmp_path: Path) -> None:
    with started(command(sides, tmp_path, "--processes", "2")) as process:
        told(process, "epoch 2/")
        pids = trainers(process)
        assert len(pids) == 2
        os.kill(pids[1], signal.SIGKILL)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    *before, last = error.splitlines()
    assert all(line.startswith("train: epoch ") for line in before), error
    assert last.startswith("slicestream train: process 1 of the training, on ")
    assert "was ended by SIGKILL; all are needed to the end" in last
    assert alive(pids) == []
    assert not (tmp_path / "model.onnx").exists()

    again = subprocess.run(command(sides, tmp_path), capture_output=True, text=True, check=True)
    assert "epoch 1/" not in again.stderr
    assert (tmp_path / "model.onnx").exists()
    assert list((sides / "scratch").iterdir()) == []


def test_ctrl_c_ends_all_processes(sides: Path, tmp_path: Path) -> None:
    with started(command(sides, tmp_path, "--processes", "2", epochs=500)) as process:
        told(process, "epoch 1/")
        pids = trainers(process)
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert error.splitlines()[-1] == "slicestream train: interrupted"
    assert "Traceback" not in error
    assert len(pids) == 2
    assert alive(pids) == []


def test_what_all_processes_find_wrong_is_said_once(tmp_path: Path) -> None:
    training, _ = write_sides(tmp_path)
    training.write_bytes(training.read_bytes()[:1000])
    with started(command(tmp_path, tmp_path / "out", "--processes", "2")) as process:
        out, error = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert len(error.splitlines()) == 1
    assert "training-000.slices: cannot be opened" in error
    assert not (tmp_path / "out").exists()


def test_two_slurm_nodes_train_one_model(sides: Path, tmp_path: Path) -> None:
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "2"}
    nodes = [
        started(
            command(sides, tmp_path, epochs=1), SLURM_NODEID=str(node), SLURM_STEP_NODELIST="localhost,other", **job
        )
        for node in (0, 1)
    ]
    said = [node.communicate(timeout=300) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert said[0][0].startswith("model.onnx ")
    assert said[1] == ("", "")
    record = json.loads((tmp_path / "train.run.json").read_text())
    assert record["parameters"]["processes"] == 2
    assert record["device"].startswith("cpu (2 × 1 threads")


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("gpu03", "gpu03"),
        ("gpu[03-05,07]", "gpu03"),
        ("gpu[2,4]", "gpu2"),
        ("big1,gpu[03-05]", "big1"),
        ("rack[1-2]n[08-09],big1", "rack1n08"),
        ("gpu[1-2].site.example", "gpu1.site.example"),
    ],
)
def test_the_first_host_of_slurms_list_is_found(hosts: str, first: str) -> None:
    assert first_host(hosts) == first


def test_outside_of_a_step_over_nodes_this_machine_trains_alone() -> None:
    assert Nodes.of_slurm({}) == Nodes()
    batch_script = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_NNODES": "2", "SLURM_NODEID": "0"}
    assert Nodes.of_slurm(batch_script).count == 1


def test_each_process_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert [processes_here(asked, "auto") for asked in (None, 2, 4)] == [4, 2, 4]
    assert [processes_here(asked, "cpu") for asked in (None, 8)] == [1, 8]
    with pytest.raises(OptionError, match=r"--processes 5: .* has 4 usable GPUs; need one for each process"):
        processes_here(5, "cuda")


def test_more_than_one_process_by_srun_on_a_node_is_refused() -> None:
    with pytest.raises(OptionError, match="srun started 8 processes on 2 nodes; need one each"):
        Nodes.of_slurm({"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "8"})
