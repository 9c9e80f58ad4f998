"""Whether an archive kept what it was sent: the file that it gives back, compared with ours element by element."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}
PADDING = 0xFFFCFFFC


def difference(ours: Path, theirs: Path) -> str:
    """Return how the archive's copy differs, "" where it does not.

    Compared are all elements of ours but group 2 (the file's own meta information), group lengths and the padding at
    the end: bytes, or, where those differ, meaning. Pixel data must be bit-equal; where the archive changed the
    transfer syntax, their decoded values must be equal. Elements that the archive added are no difference.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            sent, kept = dcmread(ours), dcmread(theirs)
        except Exception as error:  # the archive's bytes may be anything
            return f"cannot be read ({' '.join(str(error).split())[:120]})"
        for tag in sent.keys():  # noqa: SIM118  # a Dataset iterates over its parsed elements
            if tag.group == 2 or tag.element == 0 or tag == PADDING:
                continue
            if tag not in kept:
                return f"{_name(tag)} is missing"
            if not _same(sent, kept, tag):
                return f"{_name(tag)} differs"
    return ""


def _same(sent: Dataset, kept: Dataset, tag: BaseTag) -> bool:
    ours, theirs = sent.get_item(tag), kept.get_item(tag)
    if type(ours.value) is type(theirs.value) is bytes and ours.value == theirs.value:
        return True
    try:
        if tag in PIXELS:
            changed = sent.file_meta.TransferSyntaxUID != kept.file_meta.TransferSyntaxUID
            return changed and bool(np.array_equal(sent.pixel_array, kept.pixel_array))
        return bool(sent[tag].value == kept[tag].value)
    except Exception:  # what cannot be parsed cannot be called equal
        return False


def _name(tag: BaseTag) -> str:
    return keyword_for_tag(tag) or str(tag)
