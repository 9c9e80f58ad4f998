from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom import Dataset
from pydicom.uid import EnhancedCTImageStorage

import output_cases as cases
from slicestream import RESEARCH_ONLY
from slicestream.dicom.secondary_capture import write_captures
from slicestream.errors import ArtefactError
from slicestream.figures.overlays import RED, draw_overlays
from slicestream.volumes.volume import Window


def written(folder: Path, headers: list[Dataset] | None = None) -> list[Path]:
    pictures = draw_overlays(cases.volume(), cases.mask(), None, at_most=12, window=Window())
    headers = headers or cases.headers()
    return [path for path, _ in write_captures(folder, cases.mask(), headers, pictures, window=Window())]


def test_a_capture_holds_the_overlay_pixel_by_pixel(tmp_path: Path) -> None:
    expected = dict(draw_overlays(cases.volume(), cases.mask(), None, at_most=12, window=Window()))
    paths = written(tmp_path)
    assert [path.name for path in paths] == [f"{cases.SERIES}-{index:04d}.dcm" for index in (1, 2, 4)]
    for path, index in zip(paths, (1, 2, 4), strict=True):
        assert np.array_equal(pydicom.dcmread(path).pixel_array, expected[index])
        assert np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))[0], expected[index])
    inside, outside = expected[1][11, 22], expected[1][2, 2]
    assert inside[0] > 0.6 * RED[0] > inside[1]
    assert len(set(outside.tolist())) == 1


def test_it_lies_in_its_own_series_of_the_same_study_and_names_its_source(tmp_path: Path) -> None:
    source = cases.headers()
    datasets = [pydicom.dcmread(path) for path in written(tmp_path)]
    assert {dataset.SeriesInstanceUID for dataset in datasets} != {source[0].SeriesInstanceUID}
    assert len({dataset.SeriesInstanceUID for dataset in datasets}) == 1
    assert [int(dataset.InstanceNumber) for dataset in datasets] == [1, 2, 3]
    for dataset, index in zip(datasets, (1, 2, 4), strict=True):
        assert dataset.SOPClassUID.name == "Secondary Capture Image Storage"
        assert dataset.StudyInstanceUID == source[0].StudyInstanceUID
        assert dataset.SourceImageSequence[0].ReferencedSOPInstanceUID == source[index].SOPInstanceUID
        assert list(dataset.ImageType)[:2] == ["DERIVED", "SECONDARY"]
        assert RESEARCH_ONLY in dataset.DerivationDescription
        assert [float(mm) for mm in dataset.PixelSpacing] == list(cases.SPACING_MM[1:])
        assert list(dataset.PatientOrientation) == ["L", "P"]


@pytest.mark.parametrize("says", ["YES", "NO", None])
def test_burned_in_text_is_what_the_source_says_of_it(says: str | None, tmp_path: Path) -> None:
    source = cases.headers()
    for header in source:
        if says:
            header.BurnedInAnnotation = says
    dataset = pydicom.dcmread(written(tmp_path, source)[0])
    assert dataset.get("BurnedInAnnotation") == says


def test_a_slice_that_was_a_frame_is_referenced_as_that_frame(tmp_path: Path) -> None:
    frames = cases.headers()
    for number, header in enumerate(frames, start=1):
        header.SOPClassUID, header.SOPInstanceUID = EnhancedCTImageStorage, "1.2.3.4.77"
        header.ReferencedFrameNumber = number
    path = written(tmp_path, frames)[2]
    reference = pydicom.dcmread(path).SourceImageSequence[0]
    assert (reference.ReferencedSOPInstanceUID, reference.ReferencedFrameNumber) == ("1.2.3.4.77", 5)
    assert "Error" not in cases.dciodvfy(path)


def test_lossy_sources_give_captures_that_say_so(tmp_path: Path) -> None:
    source = cases.headers()
    for header in source:
        header.LossyImageCompression, header.LossyImageCompressionRatio = "01", "8"
        header.LossyImageCompressionMethod = "ISO_10918_1"
    path = written(tmp_path, source)[0]
    dataset = pydicom.dcmread(path)
    assert (dataset.LossyImageCompression, dataset.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert "Error" not in cases.dciodvfy(path)


def test_dciodvfy_finds_no_error(tmp_path: Path) -> None:
    for path in written(tmp_path):
        said = cases.dciodvfy(path)
        assert "SCImage" in said
        assert "Error" not in said


def test_headers_of_another_series_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="source headers of"):
        written(tmp_path, cases.headers()[:-1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("values", cases.ODD_HEADERS.values(), ids=cases.ODD_HEADERS.keys())
def test_dciodvfy_finds_no_error_with_odd_headers(values: dict[str, object], tmp_path: Path) -> None:
    path = written(tmp_path, cases.odd_headers(values))[0]
    said = cases.dciodvfy(path)
    assert "SCImage" in said
    assert "Error" not in said
    assert pydicom.dcmread(path).PatientName == values.get("PatientName", "")
