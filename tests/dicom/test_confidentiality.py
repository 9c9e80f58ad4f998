"""Table E.1-1 of PS3.15 as we hold it: right, resolved by the IOD of a file, and printed on its page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as independent
from pydicom.datadict import keyword_for_tag
from pydicom.uid import CTImageStorage

from marked_files import EXAMPLES, tag_of
from slicestream.dicom.confidentiality import Options, action_of, row_of, table, type_in_iod

PAGE = Path(__file__).parents[2] / "docs/deidentification.md"
IODS = {"CT": CTImageStorage, "SEG": "1.2.840.10008.5.1.4.1.1.66.4", "SR": "1.2.840.10008.5.1.4.1.1.88.34"}
LETTERS = {"dates": "D", "patient": "K", "device": "M", "uids": "U"}


def test_the_table_is_that_of_an_independent_copy_of_the_edition() -> None:
    theirs = {
        f"{tag[0]:04X}{tag[1]:04X}": name[:-5].replace("_STAR", "*").replace("_", "/")
        for name in dir(independent)
        if name.endswith("_TAGS") and name != "ALL_TAGS"
        for tag in getattr(independent, name)
        if len(tag) == 2
    }
    ours = {row.tag: row.action for row in table().values() if row.tag not in EXAMPLES}
    assert len(ours) == 652
    assert ours == theirs


@pytest.mark.parametrize(
    ("sop_class", "keyword", "expected"),
    [
        (CTImageStorage, "StudyDate", "2"),
        (CTImageStorage, "SeriesDate", "3"),
        (CTImageStorage, "DeviceSerialNumber", "3"),
        ("1.2.840.10008.5.1.4.1.1.66.4", "DeviceSerialNumber", "1"),
        ("1.2.840.10008.5.1.4.1.1.66.4", "ContentDate", "1"),
        ("1.2.3", "SeriesDate", "1"),
    ],
)
def test_the_type_in_the_iod_decides_where_the_table_leaves_a_choice(
    sop_class: str, keyword: str, expected: str
) -> None:
    assert type_in_iod(sop_class, (), keyword) == expected


def test_repeating_groups_and_private_attributes_have_their_rows() -> None:
    for group, element in ((0x5000, 0x0005), (0x501E, 0x3000), (0x6000, 0x3000), (0x601E, 0x0010), (0x0009, 0x1001)):
        row = row_of(group, element)
        assert row is not None
        assert row.action == "X"
    assert row_of(0x0028, 0x0010) is None


def documented_row(row) -> list[str]:
    """Return the cells that the page must have: tag, name, action, what is done in CT, SEG and SR, options."""
    keyword = keyword_for_tag(tag_of(row.tag)) if row.tag not in EXAMPLES else ""
    done = [action_of(row, Options(), type_in_iod(uid, (), keyword)) for uid in IODS.values()]
    letters = [letter for name, letter in LETTERS.items() if action_of(row, Options(**{name: True}), "3") in ("K", "C")]
    changed = [] if row.options.get("structure") else letters
    return [f"`{row.tag}`", row.name, row.action, " ".join(done), " ".join(changed)]


def test_the_page_has_each_attribute_and_what_is_done_with_it() -> None:
    lines = [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| `[0-9A-Fgex]{8}` \|", line)
    ]
    found = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    assert found == [documented_row(row) for row in table().values()]
