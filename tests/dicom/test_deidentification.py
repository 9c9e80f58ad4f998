"""Each attribute of PS3.15 Table E.1-1 on a file that has it, at the root and inside a sequence."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as independent
from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

import canary
from ct_files import ct_series, ct_slice
from output_cases import SERIES, dciodvfy
from slicestream.dicom.burned_in import why_aside
from slicestream.dicom.confidentiality import PRIVATE, Options, action_of, row_of, table, type_in_iod
from slicestream.dicom.deidentification import Deidentifier, read_whole, write_deidentified
from slicestream.dicom.pseudonyms import pseudonym
from slicestream.dicom.segmentation import write_segmentation
from slicestream.errors import StudyError
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.mask import Candidate, Mask

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


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[Dataset, Dataset, Path, Path]]]:
    """CT, SEG and SR that reference one another: (before, after, path before, path after) of each file."""
    folder = tmp_path_factory.mktemp("joined")
    paths = {"CT": ct_series(folder / "ct", StudyDate="20200301", StudyID="", AccessionNumber="A4711")}
    source = [dcmread(path, stop_before_pixels=True) for path in paths["CT"]]
    paths["SEG"] = [folder / "seg.dcm"]
    write_segmentation(folder / "seg.dcm", small_mask(), source)
    paths["SR"] = [folder / "sr.dcm"]
    report(dcmread(folder / "seg.dcm"), source).save_as(folder / "sr.dcm", enforce_file_format=True)
    out: dict[str, list[tuple[Dataset, Dataset, Path, Path]]] = {}
    for kind, files in paths.items():
        targets = [folder / f"out-{path.parent.name}-{path.name}" for path in files]
        out[kind] = [(dcmread(p), cleaned(p, target), p, target) for p, target in zip(files, targets, strict=True)]
    return out


def small_mask() -> Mask:
    labels = np.zeros((4, 16, 16), np.uint16)
    labels[1:3, 5:9, 4:8] = 1
    return Mask(
        kind="mask",
        id=SERIES,
        labels=labels,
        geometry=Geometry(shape=labels.shape, spacing_mm=(2.5, 0.7, 0.7)),
        volume_hash="",
        candidates=(Candidate(label=1, score=0.5, voxels=32),),
    )


def report(segmentation: Dataset, source: list[Dataset]) -> Dataset:
    """Return a TID 1500 report with a reader's name, a nodule's volume and a reference to its segment."""
    reader = hd.sr.PersonObserverIdentifyingAttributes(name=f"{canary.WORD}^Reader")
    group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=1,
            source_images=[
                hd.sr.SourceImageForSegmentation(image.SOPClassUID, image.SOPInstanceUID) for image in source
            ],
        ),
        tracking_identifier=hd.sr.TrackingIdentifier(uid=f"{canary.UID}.3", identifier=f"{canary.WORD} nodule"),
        measurements=[hd.sr.Measurement(name=codes.SCT.Volume, value=39.2, unit=codes.UCUM.CubicMillimeter)],
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(
            observer_person_context=hd.sr.ObserverContext(
                observer_type=codes.DCM.Person, observer_identifying_attributes=reader
            )
        ),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=[group],
    )
    return hd.sr.Comprehensive3DSR(
        evidence=[segmentation, *source],
        content=content,
        series_instance_uid=f"{canary.UID}.4",
        series_number=7,
        sop_instance_uid=f"{canary.UID}.5",
        instance_number=1,
        manufacturer="SliceStream",
        institution_name=canary.WORD,
    )


def references(dataset: Dataset) -> set[str]:
    return {str(e.value) for e in dataset.iterall() if e.keyword == "ReferencedSOPInstanceUID"}


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


def test_every_file_of_pydicom_is_done_set_aside_or_refused(tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    files = [path for path in (Path(pydicom.__file__).parent / "data").rglob("*") if path.is_file()]
    for path in files:
        target = tmp_path / "out.dcm"
        target.unlink(missing_ok=True)
        try:
            before = read_whole(path)
            if why_aside(before, path):
                outcomes["aside"] += 1
                continue
            name, pixels = str(before.get("PatientName", "")), before.get("PixelData")
            Deidentifier(KEY, Options(dates=True)).deidentify(before, path)
            write_deidentified(before, target, path)
        except StudyError:
            outcomes["refused"] += 1
            continue
        after = dcmread(target)
        assert after.get("PixelData") == pixels, path
        assert len(name) < 4 or name not in str(after), path
        outcomes["done"] += 1
    assert outcomes.total() == len(files)
    assert outcomes["done"] >= 80


def test_segmentation_and_report_still_reference_the_images(joined) -> None:
    images = {str(after.SOPInstanceUID) for _, after, _, _ in joined["CT"]}
    _, ct, _, _ = joined["CT"][0]
    _, seg, _, _ = joined["SEG"][0]
    before, sr, _, _ = joined["SR"][0]
    assert references(seg) == images
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == ct.SeriesInstanceUID
    assert seg.FrameOfReferenceUID == ct.FrameOfReferenceUID
    assert references(sr) == images | {str(seg.SOPInstanceUID)}
    assert len({item.StudyInstanceUID for item in (ct, seg, sr)}) == 1
    assert len({item.PatientID for item in (ct, seg, sr)}) == 1
    assert len(references(before)) == len(references(sr))


def test_a_report_keeps_its_measurements_and_loses_its_reader_and_its_texts(joined) -> None:
    before, after, _, path = joined["SR"][0]
    values = [[float(e.value) for e in dataset.iterall() if e.keyword == "NumericValue"] for dataset in (before, after)]
    assert values == [[39.2], [39.2]]
    assert canary.WORD in str(before)
    assert not canary.search(path.read_bytes(), canary.needles(set()))
    types = [[str(e.value) for e in d.iterall() if e.keyword == "ValueType"] for d in (before, after)]
    assert types[0] == types[1]


@pytest.mark.parametrize("kind", ["CT", "SEG", "SR"])
def test_dciodvfy_finds_no_new_error(kind: str, joined) -> None:
    for _, _, source, target in joined[kind]:
        assert not errors(target) - errors(source)


def errors(path: Path) -> set[str]:
    return {line for line in dciodvfy(path).splitlines() if line.startswith("Error")}


def test_frames_of_a_segmentation_are_the_same(joined) -> None:
    before, after, _, _ = joined["SEG"][0]
    assert after.PixelData == before.PixelData
    assert after.SegmentSequence[0].SegmentLabel == before.SegmentSequence[0].SegmentLabel


@pytest.mark.parametrize("syntax", [RLELossless, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_pixel_data_stay_as_they_are_in_their_transfer_syntax(syntax, tmp_path: Path) -> None:
    source = ct_slice(tmp_path / "a.dcm", z_mm=0.0)
    image = dcmread(source)
    if syntax == RLELossless:
        image.compress(syntax)
    image.file_meta.TransferSyntaxUID = syntax
    image.save_as(source, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    before, after = dcmread(source), cleaned(source, tmp_path / "b.dcm")
    assert after.file_meta.TransferSyntaxUID == syntax
    assert after.PixelData == before.PixelData
    assert np.array_equal(after.pixel_array, before.pixel_array)


@pytest.mark.real
@pytest.mark.parametrize("folder", ["ct/CPTAC-PDA_C3N-00249/dicom", "ct/Lung-PET-CT-Dx_A0002/dicom"])
def test_real_headers_get_no_new_error_and_keep_their_pixels(folder: str, data: Path, tmp_path: Path) -> None:
    source = min((data / folder).glob("*.dcm"))
    before, after = dcmread(source), cleaned(source, tmp_path / "out.dcm")
    assert after.PixelData == before.PixelData
    assert not any(element.tag.is_private for element in after.iterall())
    assert str(before.PatientID) not in str(after)
    if before.file_meta.TransferSyntaxUID.is_deflated:  # which dciodvfy cannot read
        for image, name in ((before, "before"), (after, "after")):
            image.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
            image.save_as(tmp_path / f"{name}.dcm")
        assert not errors(tmp_path / "after.dcm") - errors(tmp_path / "before.dcm")
    else:
        assert not errors(tmp_path / "out.dcm") - errors(source)


@pytest.mark.parametrize("syntax", [None, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_truncated_file_is_refused_in_one_line(syntax, share: float, tmp_path: Path) -> None:
    source = everything(tmp_path / "a.dcm")
    if syntax is not None:
        image = dcmread(source)
        image.file_meta.TransferSyntaxUID = syntax
        image.save_as(source)
    data = source.read_bytes()
    source.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(StudyError, match=r"a\.dcm: ") as refused:
        cleaned(source, tmp_path / "b.dcm")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "b.dcm").exists()


def test_repeating_groups_and_private_attributes_have_their_rows() -> None:
    for group, element in ((0x5000, 0x0005), (0x501E, 0x3000), (0x6000, 0x3000), (0x601E, 0x0010), (0x0009, 0x1001)):
        row = row_of(group, element)
        assert row is not None
        assert row.action == "X"
    assert row_of(0x0028, 0x0010) is None


PAGE = Path(__file__).parents[2] / "docs/deidentification.md"
IODS = {"CT": CTImageStorage, "SEG": "1.2.840.10008.5.1.4.1.1.66.4", "SR": "1.2.840.10008.5.1.4.1.1.88.34"}
LETTERS = {"dates": "D", "patient": "K", "device": "M", "uids": "U"}


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
