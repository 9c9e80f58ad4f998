"""What a look at one thing gave: the row of a table, the object of a JSON list."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal, TextIO

LOOKED_AT_WIDTH = len("network policy")  # the longest of them
VERDICT_WIDTH = len("verdict")
COLOURS = {"ok": "32", "note": "33", "to do": "1;31"}
LEAST_TEXT_WIDTH = 30
LAPTOP = "laptop"
NOTED_SKEW_S, ALLOWED_SKEW_S = 2.0, 60.0

Verdict = Literal["ok", "note", "to do"]
Row = tuple[str, Verdict, str]  # what was looked at, verdict, line
Rows = Iterator[Row]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that was looked at; "to do" if a run would stop there or go wrong."""

    file: str
    deployment: str
    looked_at: str
    verdict: Verdict
    line: str


def one_line(error: object) -> str:
    """Return a text as one line that steers no terminal."""
    return " ".join("".join(one if one.isprintable() else " " for one in str(error)).split())


def clock(skew_s: float) -> Row:
    """Judge how far a site's clock is from this machine's, in seconds; positive is ahead."""
    way = "ahead" if skew_s > 0 else "behind"
    if abs(skew_s) > ALLOWED_SKEW_S:
        line = f"{abs(skew_s):.0f} s {way} of this machine; set the clock that is wrong (NTP), here or there"
        return "clock", "to do", line
    if abs(skew_s) > NOTED_SKEW_S:
        return "clock", "note", f"{abs(skew_s):.0f} s {way} of this machine; times in the report will not fit together"
    return "clock", "ok", "as on this machine, within 2 s"


def as_json(found: list[Finding]) -> str:
    """Return findings as a JSON list of objects."""
    return json.dumps([asdict(one) for one in found], indent=2, ensure_ascii=False)


class Table:
    """Prints findings as they come, in columns; in colour on a terminal, unless NO_COLOR is set."""

    def __init__(self, deployments: list[str], *, to: TextIO | None = None) -> None:
        self.to = to or sys.stdout
        self.name_width = max(map(len, ["deployment", *deployments]))
        self.indent = self.name_width + LOOKED_AT_WIDTH + VERDICT_WIDTH + 6
        terminal = self.to.isatty()
        self.coloured = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.width = max(shutil.get_terminal_size().columns, self.indent + LEAST_TEXT_WIDTH) if terminal else 0
        self._write("deployment", "looked at", "verdict", "found")

    def add(self, one: Finding) -> None:
        """Print a row."""
        self._write(one.deployment, one.looked_at, one.verdict, one.line)

    def _write(self, name: str, looked_at: str, verdict: str, line: str) -> None:
        padded = f"{verdict:{VERDICT_WIDTH}}"
        if self.coloured and verdict in COLOURS:
            padded = f"\033[{COLOURS[verdict]}m{padded}\033[0m"
        wrapped = [line]
        if self.width:
            wrapped = textwrap.wrap(line, self.width - self.indent, break_on_hyphens=False) or [""]
        text = f"\n{' ' * self.indent}".join(wrapped)
        print(f"{name:{self.name_width}}  {looked_at:{LOOKED_AT_WIDTH}}  {padded}  {text}", file=self.to, flush=True)
