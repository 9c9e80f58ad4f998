"""What a user of command lines takes for granted, of every command: help, streams, exit codes, colours, completion."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest

import slicestream
from output_cases import program
from slicestream.__main__ import COMMANDS, READER_GONE, SHELLS, main
from test_docs import page, section

ESCAPE = "\x1b"


def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run our Python, its stdout buffered as users have it."""
    command = [sys.executable, *arguments]
    more.setdefault("env", {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"})
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120, check=False, **more)


@pytest.mark.parametrize("step", COMMANDS)
def test_help_goes_to_stdout_and_its_example_stays_on_one_line(
    step: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit) as left:
        main([step, "--help"])
    shown = capsys.readouterr()
    assert (left.value.code, shown.err) == (0, "")
    assert re.fullmatch(rf"example: slicestream {step}( .+)?", shown.out.splitlines()[-1])


@pytest.mark.parametrize("step", COMMANDS)
def test_a_flag_that_a_command_does_not_know_is_one_line_on_stderr(
    step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([step, "--nonsense"])
    said = capsys.readouterr()
    assert (left.value.code, said.out) == (2, "")
    assert re.fullmatch(rf"slicestream {step}: .+; see 'slicestream {step} --help'\n", said.err)


def test_a_line_that_steers_a_terminal_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["clean", f"{ESCAPE}[2J"])
    assert "unknown arguments:  [2J;" in capsys.readouterr().err


def test_without_colour_nothing_steers_a_terminal() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "slicestream", "--help"]
    subprocess.run(command, stdout=theirs, stderr=theirs, env=environment, timeout=120, check=True)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # Linux says so that the other end is closed
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    assert b"example: slicestream phantom" in shown
    assert ESCAPE.encode() not in shown


def test_a_reader_that_has_enough_ends_a_command_quietly() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as stdout:
        left = run("-m", "slicestream", "--help", stdout=stdout)
    assert (left.returncode, left.stderr) == (READER_GONE, "")


def test_results_that_find_no_room_are_a_failure() -> None:
    with Path("/dev/full").open("w") as stdout:
        left = run("-m", "slicestream", "--version", stdout=stdout)
    assert left.returncode == 2
    assert left.stderr.startswith("slicestream: output: No space left on device;")
    assert left.stderr.count("\n") == 1


def test_a_library_that_is_not_installed_is_one_line() -> None:
    source = Path(slicestream.__file__).parents[1]
    left = run(
        "-S", "-m", "slicestream", "train", env={**os.environ, "PYTHONPATH": str(source)}, stdout=subprocess.PIPE
    )
    assert not left.stdout
    assert left.returncode == 2
    assert left.stderr == (
        "slicestream train: needs the library numpy, which is not here. Run it as 'make setup' installs it.\n"
    )


def test_usage_tells_of_each_shell_and_exit_code() -> None:
    usage = page("docs/usage.md")
    assert set(re.findall(r"^\.venv/bin/slicestream --completion (\w+) > ", usage, flags=re.M)) == set(SHELLS)
    assert f"\n| {READER_GONE} | " in section(usage, "## Exit codes")


@pytest.fixture(scope="module")
def completions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the file of each shell that `slicestream --completion` printed."""
    folder = tmp_path_factory.mktemp("completions")
    written = {}
    for shell in SHELLS:
        written[shell] = folder / f"_slicestream.{shell}"
        with written[shell].open("w") as stdout, redirect_stdout(stdout), pytest.raises(SystemExit) as left:
            main(["--completion", shell])
        assert left.value.code == 0
    return written


# the words before the one to complete, what is there of it, what the shell has to offer
TO_COMPLETE = [
    ("", "pre", {"preprocess"}),
    ("clean", "--r", {"--run"}),
    ("export --segmentation", "", {"binary", "labelmap", "both"}),
    ("train --device", "c", {"cpu", "cuda"}),
]


@pytest.mark.parametrize(("before", "begun", "offered"), TO_COMPLETE)
def test_bash_offers_commands_flags_and_choices(
    before: str, begun: str, offered: set[str], completions: dict[str, Path]
) -> None:
    words = ["slicestream", *before.split(), begun]
    script = (
        'source "$1"; shift; read -ra how < <(complete -p slicestream); function=${how[-2]}; '
        'COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); "$function" "$1" "${@: -1}" "${@: -2:1}"; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = [program("bash", "bash"), "--norc", "-c", script, "bash", completions["bash"], *words]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert {line.strip() for line in shown.stdout.splitlines()} == offered


@pytest.mark.parametrize(("before", "begun", "offered"), TO_COMPLETE)
def test_fish_offers_commands_flags_and_choices(
    before: str, begun: str, offered: set[str], completions: dict[str, Path], tmp_path: Path
) -> None:
    line = " ".join(["slicestream", *before.split(), begun])
    command = [program("fish", "fish"), "--no-config", "-c", 'source $argv[1]; complete -C "$argv[2]"']
    shown = subprocess.run(
        [*command, completions["fish"], line],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert {one.split("\t")[0] for one in shown.stdout.splitlines()} == offered


def test_zsh_finds_its_completions_in_a_folder(completions: dict[str, Path], tmp_path: Path) -> None:
    completions["zsh"].rename(tmp_path / "_slicestream")
    script = 'fpath=("$1" $fpath); autoload -U compinit; compinit -u -d "$1/dump"; print -r -- $_comps[slicestream]'
    shown = subprocess.run(
        [program("zsh", "zsh"), "-f", "-c", f"{script}; autoload +X _slicestream", "zsh", tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (shown.stdout, shown.stderr) == ("_slicestream\n", "")
