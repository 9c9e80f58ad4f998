"""The identity map gives back the headers, and says so when it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from ct_files import ct_series
from slicestream.dicom.header import read_header
from slicestream.dicom.identity import IdentityWriter, part10_files, read_identities
from slicestream.errors import ArtefactError
from slicestream.volumes.volume import SeriesId

SERIES = SeriesId(patient="0" * 16, series="1" * 16)


def written(folder: Path, name: str = "a.identity", *, implicit: bool = False, anew: bool = False) -> Path:
    files = []
    for path in ct_series(folder / "ct"):
        if implicit:
            image = dcmread(path)
            image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            image.save_as(path)
        files.append(read_header(path))
    names = ["0.dcm", "1.dcm", "2.dcm", "3.dcm"]
    headers, encoded = [file.dataset for file in files], [b"" if anew else file.encoded for file in files]
    with IdentityWriter(folder / name) as identities:
        identities.add(SERIES, part10_files(headers, names, encoded), names)
    return folder / name


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("anew", [False, True])
def test_headers_come_back_in_order_without_pixels(tmp_path: Path, implicit: bool, anew: bool) -> None:
    identities = read_identities([written(tmp_path, implicit=implicit, anew=anew)])
    assert list(identities) == [str(SERIES)]
    assert len(identities) == 1
    headers = identities[str(SERIES)]
    assert [float(header.ImagePositionPatient[2]) for header in headers] == [0.0, 2.5, 5.0, 7.5]
    assert all(header.PatientName == "Test^Patient" and "PixelData" not in header for header in headers)


def test_an_unknown_series_is_a_key_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        read_identities([written(tmp_path)])["nobody"]


def test_a_series_in_two_maps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"in a\.identity too"):
        read_identities([written(tmp_path), written(tmp_path, "b.identity")])


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.identity").write_text("no")
    with pytest.raises(ArtefactError, match="not a readable identity map"):
        read_identities([tmp_path / "a.identity"])


def test_a_damaged_map_is_refused_when_its_headers_are_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path)
    content = bytearray(path.read_bytes())
    content[100:140] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match="headers of 0000"):
        read_identities([path])[str(SERIES)]
