"""De-identification after DICOM PS3.15 Annex E: one dataset in, the same without what tells who it is of.

What each attribute gets stands in confidentiality.py. UIDs become `2.25.<UUID>` of a keyed hash, so that images,
segmentations and reports that reference one another still do, over files and over runs with the same key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
import warnings
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_has_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from slicestream import __version__
from slicestream.dicom.confidentiality import Options, action_of, edition, row_of, type_in_iod
from slicestream.dicom.files import needed, one_line, read_dicom, text_of
from slicestream.dicom.pseudonyms import pseudonym
from slicestream.dicom.result import save
from slicestream.errors import OutputError, StudyError

DUMMY = "ANONYMIZED"
_PIXELS = 0x7FE0
_UNDEFINED = 0xFFFFFFFF
_MOST_DAYS = 3650
_WORDS = {"X": "removed", "Z": "emptied", "D": "dummy", "U": "UID mapped", "K": "kept", "C": "cleaned"}
_SHORTEST_WORD = 4
_NAMES = (
    *("PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName", "AccessionNumber"),
    *("PatientMotherBirthName", "AdmissionID"),
)
_FREE = {"LO", "LT", "SH", "ST", "UC", "UR", "UT"}
_DUMMIES: dict[str, object] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), DUMMY),
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "UN"), b"\0" * 8),
    **dict.fromkeys(("FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"), 0),
    **{"DS": "0", "IS": "0", "AS": "000Y", "DA": "19000101", "DT": "19000101000000", "TM": "000000"},
    **{"UR": "urn:anonymized", "AT": 0},
}
# UIDs of kinds of things, not of things.
_CLASSES = {"CodingSchemeUID", "ContextUID", "MappingResourceUID", "LabelingSystemUID"}
# Coded strings without which an annotation that was made a dummy is not valid.
_STRUCTURAL = {
    *("AnchorPointAnnotationUnits", "AnchorPointVisibility", "BoundingBoxAnnotationUnits", "GraphicAnnotationUnits"),
    *("BoundingBoxTextHorizontalJustification", "GraphicFilled", "GraphicType"),
}


def read_whole(path: Path) -> Dataset:
    """Return the dataset of a file that is all there; pydicom passes over a missing end. Raises StudyError."""
    dataset = read_dicom(path)
    for tag in dataset.keys():  # noqa: SIM118
        element: Any = dataset.get_item(tag)  # as it was read, not yet parsed
        if isinstance(element, RawDataElement) and element.length not in (_UNDEFINED, len(element.value or b"")):
            raise StudyError(
                f"{path}: truncated: {len(element.value or b'')} of {element.length} bytes of {tag}; "
                "need a whole DICOM file. Fetch it again."
            )
    if "Rows" in dataset and not any(tag.group == _PIXELS for tag in dataset.keys()):  # noqa: SIM118
        raise StudyError(f"{path}: an image without its pixels (truncated?); need a whole DICOM file. Fetch it again.")
    return dataset


class Deidentifier:
    """Takes the identity out of datasets; one for a whole delivery. `counts`: (attribute, what was done) → times."""

    def __init__(self, key: bytes, options: Options) -> None:
        self._key = key
        self.options = options
        self.counts: Counter[tuple[str, str]] = Counter()

    def uid(self, uid: str) -> str:
        """Return the UID that stands for `uid`; those that the standard itself defines stay."""
        if not uid or UID(uid).name != uid:  # it has a name in the standard's dictionary
            return uid
        digest = self._digest("uid", uid)
        return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"

    def deidentify(self, dataset: Dataset, path: Path) -> str:
        """Take the identity out of a dataset, in place; return the patient's pseudonym. Raises StudyError."""
        identity = text_of(dataset, "PatientID", path) or f"study {text_of(dataset, 'StudyInstanceUID', path)}"
        sop_class = str(needed(dataset, "SOPClassUID", path))
        needed(dataset, "SOPInstanceUID", path)
        words = _identifying_words(dataset, path)
        work = _Work(parent=self, days=self._days(identity), sop_class=sop_class, words=words)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                work.clean(dataset, ())
        except StudyError:
            raise
        except Exception as error:  # values are parsed when they are looked at, and may be anything
            reason = one_line(str(error))
            raise StudyError(f"{path}: damaged header ({reason}); need readable DICOM. Fetch it again.") from error
        name = pseudonym(self._key, "patient", identity)
        dataset.PatientID = dataset.PatientName = name
        self.counts["(0010,0010) Patient's Name", "pseudonym"] += 1
        self.counts["(0010,0020) Patient ID", "pseudonym"] += 1
        self._say_so(dataset)
        _renew_meta(dataset)
        return name

    def _days(self, identity: str) -> int:
        return 1 + int.from_bytes(self._digest("dates", identity)[:8], "big") % _MOST_DAYS

    def _digest(self, kind: str, text: str) -> bytes:
        return hmac.new(self._key, f"{kind}\0{text}".encode(), hashlib.sha256).digest()

    def _say_so(self, dataset: Dataset) -> None:
        """Note in the dataset what was done to it (PS3.15 E.1.1, PS3.3 C.7.1.1)."""
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = [f"SliceStream {__version__}", f"DICOM PS3.15 {edition()} Annex E"]
        items = []
        for value, meaning in self.options.codes():
            item = Dataset()
            item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
            items.append(item)
        dataset.DeidentificationMethodCodeSequence = Sequence(items)
        dataset.LongitudinalTemporalInformationModified = "MODIFIED" if self.options.dates else "REMOVED"


class _Work:
    """One dataset being cleaned: its SOP class decides types, its patient the shift of dates."""

    def __init__(self, *, parent: Deidentifier, days: int, sop_class: str, words: frozenset[str]) -> None:
        self._parent = parent
        self._words = words
        self._days = days
        self._sop_class = sop_class

    def clean(self, dataset: Dataset, path: tuple[str, ...], *, scrub: bool = False) -> None:
        """Do what the table says with each element and all below it; `scrub`: leave no text at all."""
        for tag in list(dataset.keys()):
            if tag.group == _PIXELS:
                continue
            row = row_of(tag.group, tag.element)
            if row is None:
                self._unlisted(dataset, tag, path, scrub=scrub)
                continue
            element = None if row.action == "X" and not self._parent.options.chosen() else dataset[tag]
            keyword = element.keyword if element is not None else ""
            action = action_of(row, self._parent.options, type_in_iod(self._sop_class, path, keyword))
            done = self._apply(action, dataset, tag, path, scrub=scrub)
            self._parent.counts[row.label, done] += 1

    def _apply(self, action: str, dataset: Dataset, tag: BaseTag, path: tuple[str, ...], *, scrub: bool) -> str:
        """Take one action; return it in words."""
        if action == "X":
            del dataset[tag]
            return _WORDS[action]
        element = dataset[tag]
        if action == "C" and element.VR in ("DA", "DT", "TM") and self._shifted(element):
            return "shifted"
        if action == "C" and element.VR != "SQ":  # a date that is none
            del dataset[tag]
            return _WORDS["X"]
        if action == "Z":
            element.value = Sequence() if element.VR == "SQ" else ""
        elif element.VR == "SQ":
            if action == "D":
                element.value = Sequence(list(element.value)[:1])
            for item in element.value:
                self.clean(item, (*path, element.keyword), scrub=scrub or action == "D")
        elif action == "D":
            self._make_dummy(element)
        elif action == "U":
            self._map_uids(element)
        return _WORDS[action]

    def _unlisted(self, dataset: Dataset, tag: BaseTag, path: tuple[str, ...], *, scrub: bool) -> None:
        """An attribute that the table does not have: what may name somebody is cleaned all the same."""
        counts = self._parent.counts
        if tag.element == 0:  # a group's length, which is another one now
            del dataset[tag]
            return
        if not dictionary_has_tag(tag) or dataset[tag].VR == "UN":
            del dataset[tag]
            counts["attributes unknown to the dictionary", _WORDS["X"]] += 1
            return
        element = dataset[tag]
        label = f"({tag.group:04X},{tag.element:04X}) {element.name}"
        in_content = "ContentSequence" in path
        if element.VR == "SQ":
            for item in element.value:
                self.clean(item, (*path, element.keyword), scrub=scrub)
        elif element.VR == "UI":
            if not _names_a_class(element.keyword) and not self._parent.options.uids:
                self._map_uids(element)
                counts[label, _WORDS["U"]] += 1
        elif element.VR == "PN" and not scrub:
            element.value = ""
            counts[label, _WORDS["Z"]] += 1
        elif (scrub and _is_text(element)) or (in_content and element.keyword == "TextValue"):
            self._make_dummy(element)
            counts[label, _WORDS["D"]] += 1
        elif element.VR in _FREE and self._words.intersection(_words_of(str(element.value))):
            self._make_dummy(element)
            counts[label, "dummy: named the patient"] += 1

    def _make_dummy(self, element: DataElement) -> None:
        if element.is_empty:
            return
        if element.VR == "UI":
            self._map_uids(element)
        else:
            element.value = _DUMMIES[element.VR]

    def _map_uids(self, element: DataElement) -> None:
        value = element.value
        several = isinstance(value, MultiValue | list)
        element.value = [self._parent.uid(uid) for uid in value] if several else self._parent.uid(value or "")

    def _shifted(self, element: DataElement) -> bool:
        """Move each date of an element into the past; return whether it held dates. Times of the day stay."""
        values = element.value if isinstance(element.value, MultiValue | list) else [element.value]
        texts = [str(value or "").strip() for value in values]
        if element.VR == "TM":
            return all(set(text) <= set("0123456789.:") for text in texts)
        try:
            moved = [self._moved(text) if text else "" for text in texts]
        except (ValueError, OverflowError):
            return False
        element.value = moved if len(moved) > 1 else moved[0]
        return True

    def _moved(self, text: str) -> str:
        date, rest = text[:8], text[8:]
        if set(rest) - set("0123456789.+-"):
            raise ValueError(rest)
        return (datetime.strptime(date, "%Y%m%d") - timedelta(days=self._days)).strftime("%Y%m%d") + rest


def write_deidentified(dataset: Dataset, path: Path, source: Path) -> None:
    """Write a dataset that was de-identified, in its own transfer syntax. Raises StudyError, OutputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            save(path, dataset)
    except OutputError:
        raise
    except Exception as error:  # a damaged element may fail in any way
        reason = one_line(str(error))
        raise StudyError(f"{source}: cannot be written again ({reason}); damaged. Fetch it again.") from error


def _renew_meta(dataset: Dataset) -> None:
    """Replace the file meta information and the preamble: they name titles, and may hold anything."""
    source = getattr(dataset, "file_meta", FileMetaDataset())
    meta = FileMetaDataset()
    usual = ImplicitVRLittleEndian if dataset.original_encoding[0] else ExplicitVRLittleEndian
    meta.TransferSyntaxUID = source.get("TransferSyntaxUID") or usual
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    dataset.file_meta, dataset.preamble = meta, b"\0" * 128


def _identifying_words(dataset: Dataset, path: Path) -> frozenset[str]:
    """Return the words of a patient's names and numbers, to find where else they stand."""
    return frozenset(word for name in _NAMES for word in _words_of(text_of(dataset, name, path)))


def _words_of(text: str) -> set[str]:
    return {word for word in re.split(r"[\W_]+", text.casefold()) if len(word) >= _SHORTEST_WORD}


def _names_a_class(keyword: str) -> bool:
    return keyword in _CLASSES or keyword.endswith(("ClassUID", "ClassesUID", "TransferSyntaxUID"))


def _is_text(element: DataElement) -> bool:
    return isinstance(_DUMMIES.get(element.VR), str | bytes) and element.keyword not in _STRUCTURAL
