"""The table of findings: columns, colour on a terminal only, verdicts on clocks."""

from __future__ import annotations

import io
import json
import os
import re

import pytest

from slicestream.sites.findings import Finding, Table, as_json, clock, one_line

ROW = Finding(file="a.yml", deployment="hpc", looked_at="work folder", verdict="to do", line="make room " * 20)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def printed(to: io.StringIO) -> list[str]:
    Table(["laptop", "hpc", "a-long-deployment"], to=to).add(ROW)
    return to.getvalue().splitlines()


def test_columns_stand_below_one_another_and_a_pipe_gets_whole_lines() -> None:
    head, row = printed(io.StringIO())
    assert row.startswith("hpc                work folder     to do    make room make room")
    assert head.index("looked at") == row.index("work folder")
    assert head.index("found") == row.index("make room")
    assert row.rstrip().endswith("room make room"), "not wrapped"


def test_a_terminal_gets_colour_and_lines_that_fit() -> None:
    lines = printed(Terminal())
    assert "\033[1;31mto do" in lines[1]
    bare = [re.sub(r"\033\[[\d;]*m", "", line) for line in lines]
    assert max(map(len, bare)) <= 80
    assert len(bare) > 4
    assert {len(line) - len(line.lstrip()) for line in bare[2:]} == {bare[1].index("make room")}


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour_where_none_is_wanted(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert "\033" not in "".join(printed(Terminal()))


def test_no_color_that_is_empty_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    assert os.environ["NO_COLOR"] == ""
    assert "\033" in "".join(printed(Terminal()))


def test_json_is_a_list_of_objects_with_every_field() -> None:
    (one,) = json.loads(as_json([ROW]))
    assert one == {
        "file": "a.yml",
        "deployment": "hpc",
        "looked_at": "work folder",
        "verdict": "to do",
        "line": ROW.line,
    }


@pytest.mark.parametrize(
    ("skew_s", "verdict", "said"),
    [(1.9, "ok", ""), (-2.5, "note", "2 s behind"), (59.0, "note", "59 s ahead"), (-61.0, "to do", "61 s behind")],
)
def test_a_clock_is_noted_over_two_seconds_and_wrong_over_a_minute(skew_s: float, verdict: str, said: str) -> None:
    looked_at, found, line = clock(skew_s)
    assert (looked_at, found) == ("clock", verdict)
    assert said in line


def test_what_a_site_says_steers_no_terminal() -> None:
    assert one_line("a\x1b[31m\n  b\tc\x07") == "a [31m b c"
