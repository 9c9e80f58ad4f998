"""A CT file that has every attribute of PS3.15 Table E.1-1, each with a mark in it, and its de-identification."""

from __future__ import annotations

from pathlib import Path

from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage

import canary
from ct_files import ct_slice
from output_cases import dciodvfy
from slicestream.dicom.confidentiality import PRIVATE, Options, table
from slicestream.dicom.deidentification import Deidentifier, read_whole, write_deidentified

KEY = b"a key of the tests, long enough"
HOLDER = "ReferencedSeriesSequence"  # not in the table: what is inside is looked through
EXAMPLES = {"50xxxxxx": 0x50003000, "60xx3000": 0x60003000, "60xx4000": 0x60024000, PRIVATE: 0x00091001}
TEXT = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT")
BYTES = ("OB", "OW", "UN", "OB or OW")
# Not in a data set: command elements are of messages, (0002,eeee) of the file meta information.
ROWS = [row for row in table().values() if not row.tag.startswith(("0000", "0002"))]


def tag_of(row: str) -> Tag:
    return Tag(EXAMPLES[row] if row in EXAMPLES else int(row, 16))


def marked_value(tag: Tag) -> tuple[str, object]:
    """Return the VR of an attribute and a value that holds a mark."""
    vr = dictionary_VR(tag) if dictionary_has_tag(tag) and not tag.is_private else "LO"
    if vr in TEXT:
        return vr, canary.WORD
    if vr in BYTES:
        return ("OB" if vr == "OB or OW" else vr), canary.WORD.encode() * 2
    if vr == "SQ":
        item = Dataset()
        item.PatientName, item.ReferencedSOPInstanceUID = canary.WORD, f"{canary.UID}.{int(tag)}"
        item.ReferencedSOPClassUID = CTImageStorage
        return vr, Sequence([item])
    marks = {
        "UI": f"{canary.UID}.{int(tag)}",
        "UR": f"http://{canary.WORD}/",
        "DA": canary.DATE,
        "DT": f"{canary.DATE}101112",
        "TM": "101112",
        "AS": "417Y",
        "DS": canary.NUMBER,
        "IS": canary.DATE,
        "US": 4172,
        "FD": 417.2519,
    }
    return vr, marks[vr]


def fill(dataset: Dataset) -> None:
    """Give a dataset each attribute of the table, with marks."""
    for row in ROWS:
        tag = tag_of(row.tag)
        dataset[tag] = DataElement(tag, *marked_value(tag))
    dataset.add_new(0x00090010, "LO", f"{canary.WORD} PRIVATE")
    dataset.add_new(0x60000010, "US", 16)
    dataset.add_new(0x60000022, "LO", canary.WORD)
    dataset.add_new(0x00080011, "UN", canary.WORD.encode() * 2)  # of no known meaning
    dataset.add_new(0x00120099, "LO", canary.WORD)
    dataset.SelectorPNValue = canary.WORD


def everything(path: Path, **header: object) -> Path:
    """Write a CT file that has all of it, at the root and in a sequence, and marks around the data set."""
    ct_slice(path, z_mm=0.0)
    image = dcmread(path)
    inner = Dataset()
    fill(inner)
    fill(image)
    setattr(image, HOLDER, Sequence([inner]))
    image.ContextUID = "1.2.840.10008.6.1.1"
    image.InstanceCreatorUID = f"{canary.UID}.77"
    image.preamble = canary.WORD.encode().ljust(128, b"\0")
    image.file_meta.SourceApplicationEntityTitle = canary.WORD
    image.file_meta.SendingApplicationEntityTitle = canary.WORD
    image.file_meta.PrivateInformationCreatorUID = f"{canary.UID}.1"
    image.file_meta.PrivateInformation = canary.WORD.encode() * 2
    image.file_meta.ImplementationVersionName = canary.WORD
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    for name, value in header.items():
        setattr(image, name, value)
    image.save_as(path)
    return path


def cleaned(source: Path, out: Path, options: Options | None = None, key: bytes = KEY) -> Dataset:
    """De-identify a file; return what was written, read again."""
    dataset = read_whole(source)
    Deidentifier(key, options or Options()).deidentify(dataset, source)
    write_deidentified(dataset, out, source)
    return dcmread(out)


def new_errors(source: Path, target: Path) -> set[str]:
    """Return the errors that dciodvfy finds in the target and not in the source."""
    before, after = (
        {line for line in dciodvfy(path).splitlines() if line.startswith("Error")} for path in (source, target)
    )
    return after - before
