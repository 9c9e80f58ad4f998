"""The command line: quick help, an example for every step, clear refusals."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from slicestream import __version__
from slicestream.__main__ import COMMANDS, _parser, main

HEAVY = (
    "numpy",
    "paramiko",
    "rich",
    "kubernetes",
    "torch",
    "pydicom",
    "SimpleITK",
    "highdicom",
    "openvino",
    "matplotlib",
    "cc3d",
    "blosc2",
    "PIL",
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "slicestream", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_help_imports_no_library() -> None:
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "slicestream", "--help"], capture_output=True, text=True, check=True
    )
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in found.stderr.splitlines()}
    assert "argparse" in imported
    assert imported.isdisjoint(HEAVY)


def test_help_names_every_step() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    for step, summary in COMMANDS.items():
        assert step in shown.stdout
        assert summary.split()[0] in shown.stdout


@pytest.mark.parametrize("step", COMMANDS)
def test_help_of_a_step_ends_with_an_example_that_its_own_parser_takes(
    step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([step, "--help"])
    assert left.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "example: slicestream " in shown
    command = shlex.split(shown.rpartition("example: ")[2])
    assert command[:2] == ["slicestream", step]
    assert _parser(step).parse_args(command[1:]).step == step


@pytest.mark.parametrize("step", COMMANDS)
def test_every_flag_of_a_step_has_help(step: str) -> None:
    commands = next(action for action in _parser(step)._actions if action.dest == "step")
    assert isinstance(commands.choices, dict)
    silent = [action.option_strings for action in commands.choices[step]._actions if not action.help]
    assert not silent


def test_infer_imports_neither_torch_nor_a_dicom_library() -> None:
    code = "import sys, slicestream.infer; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {name.split(".")[0] for name in found.stdout.split()}
    assert "openvino" in imported
    assert "openvino_telemetry" not in imported
    assert imported.isdisjoint({"torch", "onnx", "pydicom", "SimpleITK", "highdicom", "matplotlib", "PIL"})


def test_an_unknown_step_is_refused_with_the_known_ones() -> None:
    refused = run("diagnose")
    assert refused.returncode == 2
    assert "diagnose" in refused.stderr
    assert "preprocess" in refused.stderr
    assert not refused.stdout


def test_no_step_at_all_is_refused() -> None:
    refused = run()
    assert refused.returncode == 2
    assert "STEP" in refused.stderr


def test_the_version_is_that_of_the_package() -> None:
    shown = run("--version")
    assert shown.returncode == 0
    assert shown.stdout == f"slicestream {__version__}\n"
