"""Whole files through de-identification: transfer syntaxes, real headers, what pydicom carries, damage."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from ct_files import ct_slice
from marked_files import KEY, cleaned, everything, new_errors
from slicestream.dicom.burned_in import why_aside
from slicestream.dicom.confidentiality import Options
from slicestream.dicom.deidentification import Deidentifier, read_whole, write_deidentified
from slicestream.errors import StudyError


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
        assert not new_errors(tmp_path / "before.dcm", tmp_path / "after.dcm")
    else:
        assert not new_errors(source, tmp_path / "out.dcm")


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
