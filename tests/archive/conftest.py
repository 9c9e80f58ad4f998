"""A running archive, and something to send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

import output_cases as cases
from archive.orthanc import USER, Orthanc
from ct_files import ct_series
from slicestream.archive import patience
from slicestream.dicom.segmentation import write_segmentation


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the user's own credentials away, and the long pauses."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("USER", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"SLICESTREAM_ARCHIVE_{name}", raising=False)
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.05)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    running = Orthanc(tmp_path_factory.mktemp("orthanc"), {"UnknownSopClassAccepted": True})
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture
def orthanc(server: Orthanc, sign_in: Callable[[Orthanc], Orthanc]) -> Orthanc:
    """An empty archive that takes every SOP class; the environment holds its password."""
    server.empty()
    return sign_in(server)


@pytest.fixture
def sign_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[Orthanc], Orthanc]:
    def set_password(orthanc: Orthanc) -> Orthanc:
        monkeypatch.setenv("SLICESTREAM_ARCHIVE_USER", USER)
        monkeypatch.setenv("SLICESTREAM_ARCHIVE_PASSWORD", orthanc.password)
        return orthanc

    return set_password


@pytest.fixture
def another(tmp_path: Path, sign_in: Callable[[Orthanc], Orthanc]) -> Iterator[Callable[..., Orthanc]]:
    """Start an archive with settings of its own."""
    running: list[Orthanc] = []

    def start(file_limit_kib: int = 0, **settings: object) -> Orthanc:
        running.append(Orthanc(tmp_path / f"orthanc{len(running)}", settings, file_limit_kib))
        return sign_in(running[-1].start())

    yield start
    for one in running:
        one.stop()


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 CT slices, a BINARY SEG as export writes it, and a LABELMAP SEG of the same voxels. Not to be written to."""
    folder = tmp_path_factory.mktemp("results")
    ct_series(folder / "ct", slices=4)
    write_segmentation(folder / "seg" / "binary.dcm", cases.mask(), cases.headers())
    labelmap(folder / "seg" / "labelmap.dcm", folder / "seg" / "binary.dcm")
    return folder


def labelmap(path: Path, binary: Path) -> None:
    segments = dcmread(binary).SegmentSequence
    sources: list[Dataset] = []
    for header in cases.headers():
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        for keyword in ("StudyID", "StudyDate", "StudyTime", "PatientBirthDate", "PatientSex", "AccessionNumber"):
            setattr(header, keyword, header.get(keyword, ""))
        header.ReferringPhysicianName, header.SliceThickness = "", "2.5"
        sources.append(header)
    description = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="nodules",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Nodule,
        algorithm_type="MANUAL",
    )
    assert len(segments) == 2
    segmentation = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=(cases.labels() > 0).astype(np.uint8),
        segmentation_type="LABELMAP",
        segment_descriptions=[description],
        series_instance_uid=highdicom.UID(),
        series_number=9002,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
    )
    segmentation.save_as(path)
