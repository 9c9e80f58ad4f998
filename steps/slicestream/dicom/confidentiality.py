"""What DICOM PS3.15 Annex E says is to be done with each attribute: Table E.1-1, its options and their codes.

`ps3_15.json` is the table of the edition that it names. Where a row leaves a choice (X/Z, X/D, X/Z/D, Z/D), the type
of the attribute in the file's own IOD decides, as the table's legend asks: 1 needs a dummy, 2 may be empty, 3 goes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map, get_sop_class_iod_map

PRIVATE, CURVES, OVERLAYS = "ggggeeee", "50xxxxxx", "60xx3000"
_TABLE = Path(__file__).with_name("ps3_15.json")
_STRONGEST_FIRST = ("1", "1C", "2", "2C", "3")
# PS3.16 CID 7050. Clean Structured Content always: a report without its content would be none.
BASIC_PROFILE = ("113100", "Basic Application Confidentiality Profile")
_STRUCTURE = ("113104", "Clean Structured Content Option")
_CODES = {
    "dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "patient": ("113108", "Retain Patient Characteristics Option"),
    "device": ("113109", "Retain Device Identity Option"),
    "uids": ("113110", "Retain UIDs Option"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Attribute:
    """A row of the table; `options` are its columns that we know: option → K (keep) or C (clean)."""

    tag: str
    name: str
    action: str
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def label(self) -> str:
        """Return tag and name, as reports show them."""
        tag = self.tag if self.tag == PRIVATE else f"{self.tag[:4]},{self.tag[4:]}"
        return f"({tag}) {self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The options of the profile that are chosen; none of them is the Basic Profile with structured content cleaned."""

    dates: bool = False
    patient: bool = False
    device: bool = False
    uids: bool = False

    def chosen(self) -> list[str]:
        """Return the names of those that are on."""
        return [name for name in _CODES if getattr(self, name)]

    def codes(self) -> list[tuple[str, str]]:
        """Return code value and meaning (scheme DCM) of the profile and of each option."""
        return [BASIC_PROFILE, _STRUCTURE, *(_CODES[name] for name in self.chosen())]


@cache
def edition() -> str:
    """Return the edition of the standard that the table is of."""
    return str(_document()["edition"])


@cache
def table() -> dict[str, Attribute]:
    """Return tag (8 hex digits in upper case, or the pattern of a repeating group) → row."""
    rows = [Attribute(**row) for row in _document()["attributes"]]
    return {row.tag: row for row in rows}


def row_of(group: int, element: int) -> Attribute | None:
    """Return the row of an attribute, None where the table has none."""
    if group % 2:
        return table()[PRIVATE]
    if group & 0xFF00 == 0x5000:
        return table()[CURVES]
    if group & 0xFF00 == 0x6000:  # what describes an overlay is of no use without it
        return table()[OVERLAYS]
    return table().get(f"{group:04X}{element:04X}")


def action_of(row: Attribute, options: Options, kind: str) -> str:
    """Return D, Z, X, U, K or C for a row, `kind` being the attribute's type in its IOD ("1" to "3")."""
    for name in options.chosen():
        allowed = row.options.get(name)
        if allowed == "K" or (allowed == "C" and name == "dates"):  # other Cs: as the Basic Profile, which takes more
            return allowed
    if row.options.get("structure") == "C":
        return "C"
    choice = row.action.split("/")
    if "U*" in choice:
        return "U"
    if len(choice) == 1:
        return choice[0]
    preferred = {"1": "DZX", "2": "ZDX"}.get(kind[:1], "XZD")
    return next(letter for letter in preferred if letter in choice)


@cache
def type_in_iod(sop_class: str, path: tuple[str, ...], keyword: str) -> str:
    """Return the strictest type that an attribute has in an IOD: "1", "1C", "2", "2C" or "3".

    `path` are the keywords of the sequences that it stands in. An unknown SOP class counts as "1": a dummy is safe.
    """
    iod = get_sop_class_iod_map().get(sop_class)
    if iod is None:
        return "1"
    return _types(iod).get((*path, keyword), "3")


@cache
def _types(iod: str) -> dict[tuple[str, ...], str]:
    found: dict[tuple[str, ...], str] = {}
    modules = get_module_attribute_map()
    for module in get_iod_module_map()[iod]:
        for attribute in modules.get(module["key"], []):
            place = (*attribute["path"], attribute["keyword"])
            kinds = [kind for kind in (attribute["type"], found.get(place)) if kind in _STRONGEST_FIRST]
            found[place] = min(kinds, key=_STRONGEST_FIRST.index, default="3")
    return found


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return document
