"""Each attribute of PS3.15 Table E.1-1 on a file that has it, at the root and inside a sequence."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

import canary
from ct_files import ct_slice
from marked_files import HOLDER, KEY, ROWS, cleaned, everything, tag_of
from slicestream.dicom.confidentiality import Options
from slicestream.dicom.deidentification import Deidentifier, read_whole
from slicestream.dicom.pseudonyms import pseudonym


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    """The file with every attribute, before and after."""
    folder = tmp_path_factory.mktemp("all")
    source = everything(folder / "source.dcm")
    return dcmread(source), cleaned(source, folder / "out.dcm")


def outcome(before: Dataset, after: Dataset, tag: Tag) -> str:
    """Return the letter of what was done to an element."""
    assert tag in before
    if tag not in after:
        return "X"
    old, new = before[tag], after[tag]
    if new.is_empty or (new.VR == "SQ" and not new.value):
        return "Z"
    if new.VR == "UI":
        assert re.fullmatch(r"2\.25\.[1-9]\d{30,38}", new.value)
        return "U" if new.value != old.value else "K"
    if new.VR == "SQ":
        text = str(new.value[0])
        assert canary.WORD not in text
        assert canary.UID not in text
        return "U" if "2.25." in text else "D"
    return "D" if str(new.value) != str(old.value) else "K"


@pytest.mark.parametrize("row", ROWS, ids=[row.tag for row in ROWS])
@pytest.mark.parametrize("place", ["root", "sequence"])
def test_each_attribute_gets_the_action_of_the_table(place: str, row, both: tuple[Dataset, Dataset]) -> None:
    before, after = both
    if place == "sequence":
        before, after = before[HOLDER].value[0], after[HOLDER].value[0]
    tag = tag_of(row.tag)
    found = outcome(before, after, tag)
    if place == "root" and row.tag in ("00100010", "00100020"):  # a pseudonym, which Z allows
        assert after[tag].value == pseudonym(KEY, "patient", canary.WORD)
        return
    allowed = {letter.rstrip("*") for letter in row.action.split("/")}
    if before[tag].VR in ("UI", "SQ") and "D" in allowed:
        allowed.add("U")  # a dummy UID is a mapped one
    assert found in allowed


@pytest.mark.parametrize(
    ("tag", "action"), [(0x00001000, "X"), (0x00001001, "U")], ids=["AffectedSOPInstanceUID", "RequestedSOPInstanceUID"]
)
def test_command_elements_too(tag: int, action: str, tmp_path: Path) -> None:
    path = ct_slice(tmp_path / "a.dcm", z_mm=0.0)
    before, dataset = read_whole(path), read_whole(path)
    for each in (before, dataset):
        each.add_new(tag, "UI", f"{canary.UID}.5")
    Deidentifier(KEY, Options()).deidentify(dataset, tmp_path)
    assert outcome(before, dataset, Tag(tag)) == action


def test_the_file_meta_information_is_a_new_one(both: tuple[Dataset, Dataset]) -> None:
    _, after = both
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
    assert after.file_meta.MediaStorageSOPInstanceUID.startswith("2.25.")
    assert after.preamble == b"\0" * 128
    names = {element.keyword for element in after.file_meta}
    assert names <= {
        *("FileMetaInformationGroupLength", "FileMetaInformationVersion", "MediaStorageSOPClassUID"),
        *("MediaStorageSOPInstanceUID", "TransferSyntaxUID", "ImplementationClassUID", "ImplementationVersionName"),
    }


@pytest.mark.parametrize("options", [Options(), Options(dates=True)], ids=["basic", "dates moved"])
@pytest.mark.parametrize("syntax", [None, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_no_mark_is_in_any_byte_of_the_file(syntax, options: Options, tmp_path: Path) -> None:
    source = everything(tmp_path / "source.dcm")
    if syntax is not None:
        image = dcmread(source)
        image.file_meta.TransferSyntaxUID = syntax
        image.save_as(source, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    wanted = canary.needles({canary.WORD, canary.UID, canary.DATE})

    def found(path: Path) -> set[str]:
        image = dcmread(path)
        if image.file_meta.TransferSyntaxUID.is_deflated:  # no zlib header: looked at inflated
            image.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
            image.save_as(path.with_suffix(".flat"))
            path = path.with_suffix(".flat")
        return canary.search(path.read_bytes(), wanted)

    assert {f"{word} as text or hex" for word in canary.PLAIN} <= found(source)
    after = cleaned(source, tmp_path / "out.dcm", options)
    assert not found(tmp_path / "out.dcm")
    assert syntax is None or after.file_meta.TransferSyntaxUID == syntax


def test_a_dummy_stands_only_where_the_iod_needs_one(both: tuple[Dataset, Dataset]) -> None:
    _, after = both  # a CT image
    assert "SeriesDate" not in after  # X/D, type 3
    assert "DeviceSerialNumber" not in after  # X/Z/D, type 3
    assert after.ContentDate == ""  # Z/D, type 2
    assert after.StudyDate == ""
    assert after.PatientName == after.PatientID


def test_what_was_done_is_noted(tmp_path: Path) -> None:
    options = Options(dates=True, device=True, patient=True)
    after = cleaned(everything(tmp_path / "a.dcm"), tmp_path / "b.dcm", options)
    assert after.PatientIdentityRemoved == "YES"
    assert "2026c" in after.DeidentificationMethod[1]
    assert [item.CodeValue for item in after.DeidentificationMethodCodeSequence] == [
        *("113100", "113104", "113107", "113108", "113109"),
    ]
    assert after.LongitudinalTemporalInformationModified == "MODIFIED"
    assert after.PatientSex == canary.WORD
    assert after.PatientAge == "417Y"
    assert after.DeviceSerialNumber == canary.WORD
    assert "Allergies" not in after  # C: we clean no text, so it goes


def test_dates_move_by_one_secret_amount_per_patient(tmp_path: Path) -> None:
    dates = {"StudyDate": "20200301", "SeriesDate": "20200229", "AcquisitionTime": "101112.5"}
    dates |= {"AcquisitionDateTime": "20200301101112.5+0100", "PatientBirthDate": "19500101", "ContentDate": "no date"}
    moved = []
    for number, (patient, study) in enumerate((("A", 0), ("A", 400), ("B", 0))):
        source = ct_slice(tmp_path / f"{number}.dcm", z_mm=number, patient=patient)
        image = dcmread(source)
        for name, value in dates.items():
            setattr(image, name, value)
        if study:
            image.StudyDate = "20210405"  # 400 days later
        image.save_as(source)
        moved.append(cleaned(source, tmp_path / f"{number}-out.dcm", Options(dates=True)))
    first, second, other = moved

    def days(image: Dataset, name: str) -> np.datetime64:
        text = getattr(image, name)
        return np.datetime64(f"{text[:4]}-{text[4:6]}-{text[6:8]}")

    assert days(first, "StudyDate") - days(first, "SeriesDate") == np.timedelta64(1, "D")
    assert days(second, "StudyDate") - days(first, "StudyDate") == np.timedelta64(400, "D")
    assert days(first, "AcquisitionDateTime") == days(first, "StudyDate")
    assert first.AcquisitionDateTime.endswith("101112.5+0100")
    assert first.AcquisitionTime == "101112.5"
    assert np.datetime64("2010-03-01") < days(first, "StudyDate") < np.datetime64("2020-03-01")
    assert days(other, "StudyDate") != days(first, "StudyDate")
    assert first.PatientBirthDate == ""
    assert "ContentDate" not in first


def test_uids_are_mapped_alike_with_one_key_and_otherwise_with_another() -> None:
    one, again, other = (Deidentifier(key, Options()) for key in (KEY, KEY, KEY + b"!"))
    assert one.uid("1.2.3") == again.uid("1.2.3") != one.uid("1.2.4")
    assert one.uid("1.2.3") != other.uid("1.2.3")
    assert one.uid("1.2.3").startswith("2.25.")
    for known in (CTImageStorage, "1.2.840.10008.1.4.1.1", ""):  # a class, a frame of reference of everybody
        assert one.uid(known) == known
    assert one.uid("1.2.840.10008.1.424242") != "1.2.840.10008.1.424242"


def test_uids_stay_on_demand(tmp_path: Path) -> None:
    source = ct_slice(tmp_path / "a.dcm", z_mm=0.0)
    before, after = dcmread(source), cleaned(source, tmp_path / "b.dcm", Options(uids=True))
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert getattr(after, name) == getattr(before, name)


def test_a_text_that_the_table_does_not_have_goes_where_it_names_the_patient(tmp_path: Path) -> None:
    source = ct_slice(
        tmp_path / "a.dcm",
        z_mm=0.0,
        patient="MRN-41725",
        PatientName="Quokka^Ann",
        ConvolutionKernel="B40f",
        SoftwareVersions="rev QUOKKA_3",
        FilterType="41725",
        ManufacturerModelName="Annex 7",
    )
    after = cleaned(source, tmp_path / "b.dcm")
    assert [after.SoftwareVersions, after.FilterType] == ["ANONYMIZED"] * 2
    assert [after.ConvolutionKernel, after.ManufacturerModelName] == ["B40f", "Annex 7"]


def test_each_of_several_uids_of_an_element_is_mapped(tmp_path: Path) -> None:
    source = ct_slice(tmp_path / "a.dcm", z_mm=0.0, IrradiationEventUID=["1.2.3.7", "1.2.3.8"])
    after = cleaned(source, tmp_path / "b.dcm")
    expected = Deidentifier(KEY, Options())
    assert list(after.IrradiationEventUID) == [expected.uid("1.2.3.7"), expected.uid("1.2.3.8")]
