"""Which files are sent: DICOM, each once, and nothing is passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from ct_files import change, ct_series, ct_slice
from slicestream.archive.instances import count_of, is_uid, local_files
from slicestream.errors import StudyError


def test_files_of_a_folder_are_found_and_what_is_no_dicom_is_named(tmp_path: Path) -> None:
    ct_series(tmp_path / "a" / "b", slices=2)
    (tmp_path / "a" / "notes.txt").write_text("x")
    found, passed_over = local_files([tmp_path])
    assert [file.path.name for file in found] == ["0.dcm", "1.dcm"]
    assert found[0].size == (tmp_path / "a/b/0.dcm").stat().st_size
    assert passed_over == [tmp_path / "a" / "notes.txt"]


def test_a_named_file_must_be_dicom(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(StudyError, match="not a DICOM file"):
        local_files([tmp_path / "notes.txt"])
    with pytest.raises(StudyError, match="no such file"):
        local_files([tmp_path / "gone.dcm"])
    with pytest.raises(StudyError, match="no DICOM file; need at least one"):
        local_files([tmp_path])


def test_two_files_of_one_uid_are_refused(tmp_path: Path) -> None:
    for name in ("one.dcm", "two.dcm"):
        ct_slice(tmp_path / name, z_mm=0)
    with pytest.raises(StudyError, match="same SOP Instance UID as"):
        local_files([tmp_path])


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"StudyInstanceUID": None}, "StudyInstanceUID ''; need a UID"),
        ({"SeriesInstanceUID": "1.2/../3"}, "SeriesInstanceUID '1.2/../3'; need a UID"),
        ({"SOPInstanceUID": "1.2.3"}, "MediaStorageSOPInstanceUID and SOPInstanceUID differ"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_file_that_no_archive_could_keep_is_refused(header: dict[str, str], expected: str, tmp_path: Path) -> None:
    path = ct_slice(tmp_path / "a.dcm", z_mm=0)
    change(path, **header)
    with pytest.raises(StudyError) as refused:
        local_files([path])
    assert expected in str(refused.value)


def test_a_uid_is_digits_and_dots_and_64_long_at_most() -> None:
    assert all(map(is_uid, ["1", "1.2.840", "2.25." + "1" * 59]))
    assert not any(map(is_uid, ["", "1.", ".1", "1..2", "a", "1.2\n", "../1", "2.25." + "1" * 60, 12, None]))


@pytest.mark.parametrize(
    ("text", "number"), [("40", 40), ("", None), ("-1", None), ("٤", None), ("4.0", None), ("9" * 5000, None)]
)
def test_a_count_is_a_short_whole_number_or_none(text: str, number: int | None) -> None:
    assert count_of(text) == number
