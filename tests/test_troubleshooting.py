"""Each entry of the troubleshooting page is a line of the program, and none is told twice."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from slicestream.__main__ import COMMANDS
from test_docs import ROOT, page, section

SHELL_VALUE = re.compile(r"\$\{[^}]*\}|\$\([^)]*\)|\$\w+")
LEAST_LETTERS = 18  # shorter texts of the source would be found in many a line
ENTRIES = [found[2] for found in re.finditer(r"^\| (``?) ?(.+?) ?\1 \| ", page("docs/troubleshooting.md"), flags=re.M)]


def written(node: ast.expr) -> str:
    """Return a text as the source has it, … for each value that is put in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    assert isinstance(node, ast.JoinedStr)
    return "".join("…" if isinstance(part, ast.FormattedValue) else written(part) for part in node.values)


@cache
def texts() -> frozenset[str]:
    """Return the texts that the program can print."""
    found = set()
    for path in (*ROOT.glob("steps/**/*.py"), *ROOT.glob("environments/*/run")):
        source = path.read_text(encoding="utf-8")
        if path.suffix == ".py" or "python" in source.partition("\n")[0]:
            nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant | ast.JoinedStr)]
            found |= {
                written(node) for node in nodes if not isinstance(node, ast.Constant) or isinstance(node.value, str)
            }
    for path in (*ROOT.glob("environments/*/run"), ROOT / "Makefile", *ROOT.glob("steps/**/assets/viewer.js")):
        quoted = re.findall(r'"([^"\n]+)"|\$\(error (.+)\)\)$', path.read_text(encoding="utf-8"), flags=re.M)
        found |= {SHELL_VALUE.sub("…", one or other) for one, other in quoted}
    return frozenset(text for text in found if len(text.replace("…", "")) >= LEAST_LETTERS and "\n" not in text)


def says(text: str, line: str) -> bool:
    """Return whether a line is this text of the source, after the command's name and perhaps a place."""
    rest = re.sub(rf"^(slicestream ({'|'.join(COMMANDS)}|…)|run): ", "", line)
    return any(
        re.fullmatch("(… )?" + ".+".join(map(re.escape, text.split("…"))), one) is not None
        for one in (line, rest, rest.removeprefix("…: "))
    )


def test_the_page_has_entries_of_every_group() -> None:
    assert len(ENTRIES) >= 25
    for heading in re.findall(r"^## .+$", page("docs/troubleshooting.md"), flags=re.M):
        assert "| `" in section(page("docs/troubleshooting.md"), heading)


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_is_a_line_of_the_program(entry: str) -> None:
    line = entry.replace("\\|", "|")
    assert any(says(text, line) for text in texts())


def test_a_line_that_the_program_does_not_say_is_found() -> None:
    assert not any(says(text, "slicestream train: …: no GPU today; come back tomorrow.") for text in texts())
    assert not any(says(text, "slicestream pull: …: no study matches. Check --study.") for text in texts())


def test_no_entry_stands_in_another_table() -> None:
    for name in ("docs/usage.md", "docs/faults.md"):
        told = {re.sub(r"^slicestream \w+: ", "", entry) for entry in ENTRIES}
        assert not [entry for entry in told if f"`{entry}`" in Path(ROOT / name).read_text(encoding="utf-8")]
