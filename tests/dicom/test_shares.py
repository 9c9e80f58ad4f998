"""Shares of a cohort take about as long as one another."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from ct_files import ct_series
from slicestream.dicom.study import find_cohort, share_of


def test_a_patient_whose_slices_are_slow_to_decode_counts_for_more_than_its_bytes(tmp_path: Path) -> None:
    for patient in "abc":
        uid = f"1.2.{ord(patient)}"
        ct_series(tmp_path / patient, PatientID=patient, StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.1")
    for path in (tmp_path / "b").iterdir():
        image = dcmread(path)
        image.file_meta.TransferSyntaxUID, image.PixelData = JPEG2000Lossless, encapsulate([b"decoded by nobody here"])
        image.save_as(path)
    patients = find_cohort(tmp_path).patients
    assert min(patients, key=lambda patient: patient.bytes).identity == "b"
    shares = [[patient.identity for patient in share_of(patients, index, 2)] for index in (1, 2)]
    assert sorted(shares) == [["a", "c"], ["b"]]
