"""Annotations in folders: each to its own series, none twice, none lost in silence."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread

from annotated import TABLE_HEAD, outline, preprocess, reading, references
from ct_files import ROOT, ct_series, ct_slice, unitochest
from lidc_files import RATED, box, nodule, roi
from slicestream.dicom.annotations import find
from slicestream.dicom.annotations.drawing import Drawing, DrawnNodule, SeriesPlace
from slicestream.dicom.annotations.find import joined
from slicestream.dicom.identity import read_identities
from slicestream.errors import AnnotationError

SEG_CLASS, RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.3"


def test_what_was_drawn_on_new_studies_stops_nothing_where_none_is_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ct_series(tmp_path / "ct")
    for name in ("a", "b"):
        reading(tmp_path / "ct" / f"{name}.xml", [outline(2, 2, 4, 1)])
    assert preprocess(tmp_path / "ct", tmp_path / "out") == 2
    assert preprocess(tmp_path / "ct", tmp_path / "out", "--no-annotations", "--annotations", str(tmp_path)) == 2
    assert "need one of them" in capsys.readouterr().err
    assert preprocess(tmp_path / "ct", tmp_path / "out", "--no-annotations") == 0
    assert len(list((tmp_path / "out").glob("*.volume"))) == 1
    assert not references(tmp_path / "out")


def test_each_reading_goes_to_the_series_it_names_wherever_it_lies(tmp_path: Path) -> None:
    for series, patient in ((1, "P1"), (2, "P2")):
        ct_series(tmp_path / "ct" / f"{series}", series=series, patient=patient)
        size = 2 + series
        reading(tmp_path / "xml" / "deep" / f"{3 - series}.xml", [outline(2, 2, size, 1, series=series)], series=series)
    assert preprocess(tmp_path / "ct", tmp_path / "out", "--annotations", str(tmp_path / "xml")) == 0
    identities = read_identities((tmp_path / "out").glob("*.identity"))
    voxels = {
        identities[str(r.id)][0].SeriesInstanceUID: int((r.labels > 0).sum()) for r in references(tmp_path / "out")
    }
    assert voxels == {f"{ROOT}.1": 9, f"{ROOT}.2": 16}


@pytest.mark.parametrize("z_mm", ["", 2.5], ids=["by instance alone", "with a position"])
def test_a_stack_on_which_nothing_was_drawn_is_not_annotated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], z_mm: float | str
) -> None:
    for phase in (1, 2):
        stored = np.full((16, 16), 500 + phase, "<u2").tobytes()
        for k in range(4):
            path, uid = tmp_path / "ct" / f"{phase}-{k}.dcm", f"{ROOT}.{phase}{k}"
            ct_slice(path, z_mm=2.5 * k, SOPInstanceUID=uid, AcquisitionNumber=phase, PixelData=stored)
    square = nodule(roi(box(2, 2, 4, 4), uid=f"{ROOT}.21", z_mm=z_mm), ratings=RATED)
    reading(tmp_path / "ct" / "a.xml", [square])
    assert preprocess(tmp_path / "ct", tmp_path / "out") == 0
    (reference,) = references(tmp_path / "out")
    identities = read_identities((tmp_path / "out").glob("*.identity"))
    assert {int(header.AcquisitionNumber) for header in identities[str(reference.id)]} == {2}
    assert len(list((tmp_path / "out").glob("*.volume"))) == 2
    said = capsys.readouterr().err
    assert "stacks of a series that its annotation draws nothing on, taken as not annotated: 1\n" in said


def test_two_annotations_of_a_series_are_refused_until_one_is_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ct_series(tmp_path / "ct")
    (tmp_path / "chosen").mkdir()
    for name, size in (("a.xml", 3), ("b.xml", 4)):
        reading(tmp_path / "ct" / name, [outline(2, 2, size, 1)])
    assert preprocess(tmp_path / "ct", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "ct/a.xml" in said
    assert "ct/b.xml: 2 annotations of one series; need one" in said
    assert not (tmp_path / "out").exists()
    shutil.copy(tmp_path / "ct" / "b.xml", tmp_path / "chosen")
    assert preprocess(tmp_path / "ct", tmp_path / "out", "--annotations", str(tmp_path / "chosen")) == 0
    assert references(tmp_path / "out")[0].candidates[0].voxels == 16


def test_annotations_of_two_formats_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ct_series(tmp_path / "ct")
    reading(tmp_path / "ct" / "a.xml", [outline(2, 2, 4, 1)])
    (tmp_path / "ct" / "annotations.csv").write_text(f"{TABLE_HEAD}{ROOT}.1,4.2,5.6,5,6\n")
    assert preprocess(tmp_path / "ct", tmp_path / "out") == 2
    assert "annotations.csv: 2 annotations of one series" in capsys.readouterr().err


def test_a_mask_of_the_table_and_another_annotation_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unitochest(tmp_path / "cohort", patients=1)
    reading(tmp_path / "xml" / "a.xml", [outline(2, 2, 4, 1)])
    assert preprocess(tmp_path / "cohort", tmp_path / "out", "--annotations", str(tmp_path / "xml")) == 2
    assert "2 annotations of one series" in capsys.readouterr().err


def test_annotations_of_series_that_are_not_there_are_counted_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for series in (1, 2):
        ct_series(tmp_path / "ct" / f"{series}", series=series, patient=f"P{series}")
    reading(tmp_path / "ct" / "1" / "a.xml", [outline(2, 2, 4, 1)])
    reading(tmp_path / "ct" / "2" / "b.xml", [outline(2, 2, 4, 1, series=2)], series=2)
    reading(tmp_path / "ct" / "2" / "c.xml", [outline(2, 2, 4, 1)], series=77)
    (tmp_path / "ct" / "x.xml").write_text(
        "<IdriReadMessage><ResponseHeader><CXRSeriesInstanceUid>1.6</CXRSeriesInstanceUid></ResponseHeader></IdriReadMessage>"
    )
    line = "annotations (lidc) of series that are not in the cohort: 2\n"
    for share, count in (("1/1", 1), ("1/2", 1), ("2/2", 0)):
        out = tmp_path / share.replace("/", "of")
        assert preprocess(tmp_path / "ct", out, "--share", share) == 0
        assert capsys.readouterr().err.count(line) == count
        assert len(references(out)) == (2 if share == "1/1" else 1)


def test_unknown_options_of_annotations_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ct_series(tmp_path / "ct")
    for option, said in (
        (("--consensus", "most"), "--consensus most: need majority, any, all, level-N"),
        (("--minimum-readers", "0"), "--minimum-readers 0: need 1 or more"),
        (("--annotations", str(tmp_path / "none")), "none: not a folder; need one with annotations"),
    ):
        assert preprocess(tmp_path / "ct", tmp_path / "out", *option) == 2
        assert said in capsys.readouterr().err


@dataclass
class StandIn:
    """A reader of another format: says what it is told of a file, by its name."""

    uids: dict[str, str]
    drawn: dict[str, tuple[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def referenced(self, path: Path) -> str | None:
        return self.uids.get(path.name)

    def read(self, path: Path, place: SeriesPlace, *, structure: str | None = None) -> Drawing:
        self.asked.append((path.name, structure))
        name, where = self.drawn[path.name]
        labels = np.zeros(place.geometry.shape, np.uint16)
        labels[where] = 1
        return Drawing(labels=labels, nodules=(DrawnNodule(label=1, name=name),))


def use(monkeypatch: pytest.MonkeyPatch, kind: str, reader: StandIn) -> None:
    known = find._module
    monkeypatch.setattr(find, "_module", lambda name: reader if name == kind else known(name))


def dicom_object(path: Path, sop_class: str, modality: str) -> None:
    """Write a DICOM file of another class, with the meta information that goes with it."""
    ct_slice(path, z_mm=0, series=9, Modality=modality, SOPClassUID=sop_class)
    dataset = dcmread(path)
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.save_as(path, enforce_file_format=True)


FIRST, SECOND = np.s_[1, 2:6, 2:6], np.s_[2, 8:11, 8:11]


@pytest.mark.parametrize(
    "case",
    [
        ({"a.dcm": ("lesion 1", FIRST), "b.dcm": ("lesion 2", SECOND)}, [16, 9]),
        ({"a.dcm": ("lesion", FIRST), "b.dcm": ("Lesion", SECOND)}, None),
        ({"a.dcm": ("reader 1", FIRST), "b.dcm": ("reader 2", np.s_[1, 3:6, 2:6])}, None),
    ],
    ids=["two structures", "one name twice", "one place twice"],
)
@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_dicom_files_that_draw_different_structures_are_joined_and_others_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: tuple[dict[str, tuple[str, Any]], list[int] | None],
    kind: str,
) -> None:
    (drawn, voxels), sop_class = case, {"seg": SEG_CLASS, "rtstruct": RTSTRUCT_CLASS}[kind]
    ct_series(tmp_path / "ct")
    for name in drawn:
        dicom_object(tmp_path / "ct" / name, sop_class, kind.upper())
    reader = StandIn(uids=dict.fromkeys(drawn, f"{ROOT}.1"), drawn=drawn)
    use(monkeypatch, kind, reader)
    code = preprocess(tmp_path / "ct", tmp_path / "out", "--structure", "lesion*")
    assert reader.asked == [("a.dcm", "lesion*"), ("b.dcm", "lesion*")]
    said = capsys.readouterr().err
    if voxels is None:
        assert code == 2
        assert "b.dcm: 2 annotations of one series; need one, or files of DICOM SEG (or of RTSTRUCT)" in said
    else:
        assert code == 0
        assert [c.voxels for c in references(tmp_path / "out")[0].candidates] == voxels
        assert "files joined on one series: 2" in said


def test_of_joined_drawings_the_smaller_nodule_has_what_both_have() -> None:
    def drawing(where: Any, *points: DrawnNodule) -> Drawing:
        labels = np.zeros((3, 9, 9), np.uint16)
        labels[where] = 1
        return Drawing(labels=labels, nodules=(DrawnNodule(label=1), *points), notes=("n: 1",))

    point = DrawnNodule(label=0, form="point", centre_lps_mm=(0, 0, 0))
    small, large = drawing(np.s_[1, 2:4, 2:4], point), drawing(np.s_[1, 3:8, 3:8])
    for drawings, sizes in (([small, large], [4, 24]), ([large, small], [24, 4])):
        together = joined(drawings)
        assert np.bincount(together.labels.ravel())[1:].tolist() == sizes
        assert sorted(n.label for n in together.nodules) == [0, 1, 2]
        assert together.notes.count("n: 1") == 2


def image(path: Path, low: int, *, kind: Any = np.int16) -> Path:
    pixels = np.zeros((4, 16, 16), kind)
    pixels[1, 2:6, 2:6] = 1
    pixels[0, 0, 0] = low
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels), str(path))
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd"])
def test_an_image_goes_to_the_series_of_its_name_or_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    for series in (1, 2, 3):
        ct_series(tmp_path / "ct" / f"{series}", series=series, patient=f"P{series}")
    names = {1: "mask", 2: f"{ROOT}.1", 3: "stray"}
    image(tmp_path / "ct" / "1" / f"{names[1]}{ending}", 0, kind=np.uint8)  # by its folder
    image(tmp_path / "ct" / f"{ROOT}.2{ending}", 0)  # by its name
    image(tmp_path / "ct" / f"stray{ending}", 0)  # neither
    reader = StandIn(
        uids=dict.fromkeys((f"mask{ending}", f"{ROOT}.2{ending}", f"stray{ending}"), ""),
        drawn={f"mask{ending}": ("", FIRST), f"{ROOT}.2{ending}": ("", SECOND)},
    )
    use(monkeypatch, "images", reader)
    assert preprocess(tmp_path / "ct", tmp_path / "out") == 0
    identities = read_identities((tmp_path / "out").glob("*.identity"))
    voxels = {identities[str(r.id)][0].SeriesInstanceUID: r.candidates[0].voxels for r in references(tmp_path / "out")}
    assert voxels == {f"{ROOT}.1": 16, f"{ROOT}.2": 9}
    assert "annotations (images) of series that are not in the cohort: 1" in capsys.readouterr().err


def test_an_image_beside_two_series_is_of_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ct_series(tmp_path / "ct")
    ct_slice(tmp_path / "ct" / "other.dcm", z_mm=0, series=2)
    image(tmp_path / "ct" / "mask.nii.gz", 0)
    use(monkeypatch, "images", StandIn(uids={"mask.nii.gz": ""}))
    assert preprocess(tmp_path / "ct", tmp_path / "out") == 0
    assert references(tmp_path / "out") == []
    assert "annotations (images) of series that are not in the cohort: 1" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "low", "said"), [(np.int16, -1000, "holds the value -"), (np.uint16, 0, "over 1000")])
def test_the_ct_itself_as_nifti_is_no_mask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: Any, low: int, said: str
) -> None:
    ct_series(tmp_path / "ct")
    pixels = np.arange(4 * 16 * 16).reshape(4, 16, 16) + 2 * low + 1024
    itk = SimpleITK.GetImageFromArray(np.maximum(pixels, low).astype(kind))
    itk.SetSpacing((0.7, 0.7, 2.5))
    SimpleITK.WriteImage(itk, str(tmp_path / "ct" / "ct.nii.gz"))
    assert preprocess(tmp_path / "ct", tmp_path / "out") == 2
    assert f"ct.nii.gz: {said}" in capsys.readouterr().err


def test_over_65535_nodules_of_joined_files_are_refused() -> None:
    labels = np.zeros((1, 2, 2), np.uint16)
    labels[0, 0, 0] = 65000
    many = Drawing(labels=labels, nodules=(DrawnNodule(label=65000),))
    with pytest.raises(AnnotationError, match="need at most 65535"):
        joined([many, many])
