"""What docs/check.md says of each fault: the tests that make it ask for the same row."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/check.md").read_text(encoding="utf-8")
Row = tuple[str, str, str]  # deployment, what was looked at, line; … in it is anything


def listed(heading: str) -> dict[str, Row]:
    """Return the row of each fault of a section of the page."""
    section = PAGE.partition(f"\n### {heading}\n")[2].partition("\n### ")[0]
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in section.splitlines() if line.startswith("| ")]
    return {row[0]: (row[1], row[2], row[3].strip("`")) for row in rows if row[3].startswith("`")}


def matches(line: str, said: str) -> bool:
    return bool(re.fullmatch(".*".join(map(re.escape, line.split("…"))), said))


def to_do(found: list[dict[str, str]], room: Path) -> list[Row]:
    """Return the rows that say what is to be done, without the names of this machine's folders."""
    rows = [one for one in found if one["verdict"] == "to do"]
    return [
        (one["deployment"], one["looked_at"], one["line"].replace(f"{room}/", "").replace(f"{ROOT}/", ""))
        for one in rows
    ]


def assert_only(row: Row, rows: list[Row]) -> None:
    """The one row of a fault, word for word, and no other."""
    deployment, looked_at, line = row
    assert [one[:2] for one in rows] == [(deployment, looked_at)], rows
    assert matches(line, rows[0][2]), rows[0][2]
    assert "\n" not in rows[0][2]
