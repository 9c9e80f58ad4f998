import subprocess
import sys
from pathlib import Path

import pytest
import torch

from slicestream.errors import OutputError
from slicestream.learning.checkpoint import checkpoint_key, default_folder, locked_checkpoint


def test_state_is_kept_after_a_failure_and_gone_after_success(tmp_path: Path) -> None:
    def fail_after_saving() -> None:
        with locked_checkpoint(tmp_path, "k") as checkpoint:
            checkpoint.save({"weights": torch.arange(3), "epoch": 2})
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail_after_saving()
    with locked_checkpoint(tmp_path, "k") as checkpoint:
        state = checkpoint.load()
        assert state is not None
        assert state["weights"].tolist() == [0, 1, 2]
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_used_by_one_process_at_a_time(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from slicestream.learning.checkpoint import locked_checkpoint\n"
        "with locked_checkpoint(Path(sys.argv[1]), 'k'): print('held', flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="another process"), locked_checkpoint(tmp_path, "k"):
            pass
        other.communicate("\n")
    with locked_checkpoint(tmp_path, "k") as checkpoint:
        assert checkpoint.load() is None


def test_a_damaged_checkpoint_is_said_and_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "state.pt").write_bytes(b"half a file")
    with locked_checkpoint(tmp_path, "k") as checkpoint:
        assert checkpoint.load() is None
    assert "starting from the beginning" in capsys.readouterr().err


def test_key_changes_with_the_configuration_only() -> None:
    assert checkpoint_key({"seed": 1, "data": ["a"]}) == checkpoint_key({"data": ["a"], "seed": 1})
    assert checkpoint_key({"seed": 1}) != checkpoint_key({"seed": 2})


def test_scratch_of_the_site_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLICESTREAM_SCRATCH", str(tmp_path))
    assert default_folder() == tmp_path


def test_no_place_for_checkpoints_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="--checkpoints"), locked_checkpoint(tmp_path / "file" / "inside", "k"):
        pass


def test_a_full_disk_keeps_the_last_checkpoint_and_says_so(tmp_path: Path) -> None:
    code = (
        "import resource, sys, torch; from pathlib import Path\n"
        "from slicestream.learning.checkpoint import Checkpoint\n"
        "checkpoint = Checkpoint(Path(sys.argv[1])); checkpoint.save({'weights': torch.zeros(3)})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"  # a file may not grow further
        "from slicestream.errors import OutputError\n"
        "try: checkpoint.save({'weights': torch.zeros(100_000)})\n"
        "except OutputError as error: print(error)\n"
        "print(len(checkpoint.load()['weights']), [path.name for path in Path(sys.argv[1]).iterdir()])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, kept = done.stdout.splitlines()
    assert "--checkpoints" in said
    assert kept == "3 ['state.pt']"
