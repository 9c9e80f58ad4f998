import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import slicestream.learning.recipe as recipes
from disc_slices import disc_stack, write_sides
from slicestream.__main__ import main
from slicestream.inference.model import load_model
from slicestream.learning.recipe import Reduction
from slicestream.volumes.patches import PATCHES
from slicestream.volumes.seal import verify
from slicestream.volumes.slices import write_slices

EPOCHS = 6


def train(folder: Path, out: Path, *more: str, epochs: int = 2) -> list[str]:
    training, validation = folder / "training-000.slices", folder / "validation-000.slices"
    flags = ["--training", str(training), "--validation", str(validation), "--recipe", "phantom"]
    flags += ["--epochs", str(epochs), "--threads", "1", "--device", "cpu", "--seed", "3"]
    return ["train", *flags, "--checkpoints", str(folder / "scratch"), "--out", str(out), *more]


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sides")
    write_sides(folder, slices=4)
    return folder


@pytest.fixture(scope="module")
def unbroken(sides: Path) -> Path:
    assert main(train(sides, sides / "unbroken", epochs=EPOCHS)) == 0
    return sides / "unbroken"


def test_train_writes_model_curves_and_record_and_learns(sides: Path, unbroken: Path) -> None:
    names = {path.name for path in unbroken.iterdir()}
    expected = {"model.onnx", "weights.safetensors", "model.json", "history.csv", "curves.svg", "train.run.json"}
    assert names == expected
    assert list((sides / "scratch").iterdir()) == []
    history = list(csv.DictReader((unbroken / "history.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in history] == list(range(1, EPOCHS + 1))
    assert float(history[-1]["training_loss"]) < 0.98 * float(history[0]["training_loss"])
    record = json.loads((unbroken / "train.run.json").read_text())
    assert record["outputs"]["model.onnx"] == verify(unbroken / "model.onnx")
    assert record["device"].startswith("cpu (1 threads")
    assert (record["items"], record["unit"]) == (20, "slices")


def test_card_tells_recipe_data_and_validation(unbroken: Path) -> None:
    card = json.loads((unbroken / "model.json").read_text())
    assert card["recipe"]["name"] == "phantom"
    assert card["data"]["training"] == {"patients": 4, "slices": 16, "annotated_slices": 16}
    assert card["spacing_mm"] == [0.7, 0.8]
    assert 0 <= card["validation"]["iou_pooled"] <= 1


def test_killed_in_the_middle_and_started_again_gives_the_same_model(sides: Path, unbroken: Path) -> None:
    out = sides / "broken"
    command = [sys.executable, "-m", "slicestream", *train(sides, out, epochs=EPOCHS)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "epoch 3/" in line)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (out / "model.onnx").exists()
    assert len((out / "history.csv").read_text().splitlines()) - 1 in range(3, EPOCHS)

    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "epoch 1/" not in again.stderr  # it went on
    for name in ("history.csv", "weights.safetensors", "model.onnx", "model.json", "curves.svg"):
        assert (out / name).read_bytes() == (unbroken / name).read_bytes(), name


def test_another_seed_gives_another_model(sides: Path, tmp_path: Path, unbroken: Path) -> None:
    assert main(train(sides, tmp_path, "--seed", "4", epochs=1)) == 0
    assert verify(tmp_path / "model.onnx") != verify(unbroken / "model.onnx")


def test_slices_of_two_sizes_train_together(tmp_path: Path) -> None:
    write_slices(tmp_path / "training-000.slices", [disc_stack(1), disc_stack(2, shape=(48, 40))])
    write_slices(tmp_path / "validation-000.slices", [disc_stack(3, shape=(24, 33))])
    assert main(train(tmp_path, tmp_path / "out", epochs=1)) == 0


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(argv) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    return error


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--recipe", "gourmet"), "--recipe gourmet: unknown; need one of paper, laptop, phantom"),
        (("--epochs", "0"), "--epochs 0: need 1 or more"),
        (("--threads", "0"), "--threads 0: need 1 or more"),
        (("--processes", "0"), "--processes 0: need 1 or more"),
        (("--processes", "2", "--compile"), "--compile: for one process, several were to train"),
        (("--seed", "-1"), "--seed -1: need 0 or more"),
    ],
)
def test_values_that_cannot_be_are_refused(
    more: tuple[str, ...], said: str, sides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(train(sides, tmp_path, *more), capsys)
    assert list(tmp_path.iterdir()) == []


def test_cuda_without_a_gpu_is_refused(sides: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "slicestream", *train(sides, tmp_path), "--device", "cuda"]
    done = subprocess.run(
        argv, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no usable CUDA GPU" in done.stderr


def test_missing_and_damaged_shards_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training, validation = write_sides(tmp_path)
    content = bytearray(training.read_bytes())
    content[len(content) // 2] ^= 255
    training.write_bytes(content)
    assert "training-000.slices: array" in refused(train(tmp_path, tmp_path / "out"), capsys)
    training.write_bytes(content[:1000])
    assert "training-000.slices: cannot be opened" in refused(train(tmp_path, tmp_path / "out"), capsys)
    training.unlink()
    assert "training-000.slices: cannot be opened" in refused(train(tmp_path, tmp_path / "out"), capsys)
    assert validation.exists()
    assert not (tmp_path / "out").exists()


def test_one_shard_given_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training, _ = write_sides(tmp_path)
    error = refused(train(tmp_path, tmp_path / "out", "--training", str(training), str(training)), capsys)
    assert "comes more than once" in error


def test_a_patient_on_both_sides_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training, _ = write_sides(tmp_path)
    error = refused(train(tmp_path, tmp_path / "out", "--validation", str(training)), capsys)
    assert "4 patients on both sides" in error


@pytest.mark.parametrize("side", ["training", "validation"])
def test_a_side_without_nodules_is_refused(side: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sides(tmp_path)
    write_slices(tmp_path / f"{side}-000.slices", [disc_stack(9, empty=True)])
    assert f"--{side}: no slice with a nodule" in refused(train(tmp_path, tmp_path / "out"), capsys)
    write_slices(tmp_path / f"{side}-000.slices", [])
    assert f"--{side}: no slice with a nodule" in refused(train(tmp_path, tmp_path / "out"), capsys)


def test_slices_too_small_for_the_network_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sides(tmp_path)
    tiny = disc_stack(9, shape=(32, 32))
    small = dataclasses.replace(tiny, hu=tiny.hu[:, :, :6], nodule=np.ones_like(tiny.nodule[:, :, :6]))
    write_slices(tmp_path / "training-000.slices", [small])
    assert "slices of 32×6 pixels; this network needs 8" in refused(train(tmp_path, tmp_path / "out"), capsys)


def test_two_trainings_of_the_same_thing_do_not_meet(sides: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "slicestream", *train(sides, tmp_path, epochs=50)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
        assert first.stderr is not None
        next(line for line in first.stderr if "epoch 1/" in line)
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        first.kill()
    assert second.returncode == 2
    assert "another process trains" in second.stderr


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, slicestream.__main__ as m\ntry: m.main(['train', '--help'])\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--checkpoints" in done.stdout


@pytest.fixture
def reducing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the recipe `phantom` learn discs quickly, and give it a second network, for this test."""
    shares = Reduction(widths=(4, 4, 4), batches=4, batch_size=4)
    phantom = recipes.RECIPES["phantom"]
    quick = dataclasses.replace(phantom, widths=(4, 8), patch_px=32, batch_size=2, learning_rate=0.02, average=0.5)
    recipe = dataclasses.replace(quick, reduction=shares, kept=0.9, temperature=True)
    monkeypatch.setattr(recipes, "RECIPES", {**recipes.RECIPES, "phantom": recipe})


@pytest.mark.usefixtures("reducing")
def test_recipe_that_reduces_false_positives_gives_one_model_of_two_networks(
    sides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(train(sides, tmp_path, epochs=8)) == 0
    assert "second network: area under the curve" in capsys.readouterr().err
    card = json.loads((tmp_path / "model.json").read_text())
    assert card["reach_mm"] == 5.0  # four slices, 2.5 mm apart
    assert card["validation"]["calibration"]["hits"] == card["reduction"]["hits"] > 0
    assert card["recipe"]["reduction"]["batches"] == 4
    model = load_model(tmp_path / "model.onnx", threads=1)
    assert (model.reach_mm, model.min_score, model.temperature) == (5.0, card["min_score"], card["temperature"])
    assert 0 < float(model.score(np.zeros((1, *PATCHES), np.float32))[0]) < 1
