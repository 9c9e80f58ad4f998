"""The tutorial's commands are ours, and those that need no model print what it shows (the others: test_demo)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from slicestream.__main__ import _parser, main
from test_docs import page, section

BLOCKS = re.findall(r"^```\n\$ (.+)\n([^`]*)^```", page("docs/tutorial.md"), flags=re.M)
COMMANDS = [command for command, _ in BLOCKS]


def test_every_command_is_one_that_we_have() -> None:
    targets = set(re.findall(r"^([a-z-]+):", page("Makefile"), flags=re.M))
    for command in COMMANDS:
        program, *words = command.split()
        if program == "make":
            assert words[0] in targets
            assert all(re.match(r"(MODEL|DATA)=", word) for word in words[1:])
        elif program == ".venv/bin/slicestream":
            assert _parser(words[0]).parse_args(words).step == words[0]
        else:
            assert program == "ls"
    assert [command.split()[1] for command in COMMANDS if command.startswith("make")] == ["setup", "demo", "segment"]


def test_what_needs_no_model_prints_what_the_tutorial_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = [(command.split()[1:], shown) for command, shown in BLOCKS if command.startswith(".venv/bin/slicestream")]
    assert [words[0] for words, _ in ours] == ["phantom", "preprocess"]
    for words, shown in ours:
        assert main(words) == 0
        assert capsys.readouterr().out == shown


def test_the_demos_lines_are_those_of_the_quick_start() -> None:
    (shown,) = [shown for command, shown in BLOCKS if command == "make demo"]
    said = section(page("README.md"), "## Quick start").splitlines()
    assert len(shown.splitlines()) >= 5
    assert not [line for line in shown.splitlines() if line not in said]
