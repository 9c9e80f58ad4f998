"""A small series with known objects, as preprocess and infer would hand it on, and its headers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from slicestream.dicom.identity import IdentityWriter, part10_files
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.mask import Candidate, Mask, write_mask
from slicestream.volumes.volume import SeriesId, Volume, read_volume, write_volume

SHAPE, SPACING_MM, ORIGIN_LPS_MM = (6, 40, 48), (2.5, 0.7, 0.8), (-100.0, -50.5, 30.25)
MODEL_HASH = "ab" * 32
SERIES = SeriesId(patient="0123456789abcdef", series="fedcba9876543210")


def geometry() -> Geometry:
    return Geometry(shape=SHAPE, spacing_mm=SPACING_MM)


def volume() -> Volume:
    hu = np.full(SHAPE, -800, np.int16)
    hu[1:3, 10:14, 20:26] = 50
    return Volume(id=SERIES, hu=hu, geometry=geometry())


def labels() -> np.ndarray:
    """Candidate 2: 2 x 4 x 6 voxels of 50 HU; candidate 5: one voxel far away. Labels have gaps on purpose."""
    found = np.zeros(SHAPE, np.uint16)
    found[1:3, 10:14, 20:26] = 2
    found[4, 30, 5] = 5
    return found


def mask(found: np.ndarray | None = None, *, volume_hash: str = "") -> Mask:
    found = labels() if found is None else found
    scores = {2: 0.91, 5: 0.4}
    candidates = tuple(
        Candidate(label=int(n), score=scores.get(int(n), 0.5), voxels=int((found == n).sum()))
        for n in np.unique(found)
        if n
    )
    return Mask(
        kind="mask",
        id=SERIES,
        labels=found,
        geometry=geometry(),
        volume_hash=volume_hash,
        model_hash=MODEL_HASH,
        candidates=candidates,
        content_hash="cd" * 32,
    )


def reference(*, volume_hash: str = "") -> Mask:
    """Nodule 1 is hit by candidate 2 (shares 2 x 4 x 5 voxels), nodule 7 is missed."""
    drawn = np.zeros(SHAPE, np.uint16)
    drawn[1:3, 10:14, 21:27] = 1
    drawn[5, 2:5, 40:44] = 7
    return Mask(kind="reference", id=SERIES, labels=drawn, geometry=geometry(), volume_hash=volume_hash)


def headers(shape: tuple[int, int, int] = SHAPE) -> list[Dataset]:
    """Return sparse headers, as in small research sets: empty type 2 values, no study time, no study ID."""
    found = []
    for index in range(shape[0]):
        header = Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, f"1.2.3.4.{index + 1}"
        header.StudyDate, header.AccessionNumber, header.Modality = "20000101", "", "CT"
        header.PatientName, header.PatientID, header.PatientBirthDate, header.PatientSex = "", "LAB-1", "", ""
        header.StudyInstanceUID, header.SeriesInstanceUID = "1.2.3", "1.2.3.4"
        header.FrameOfReferenceUID = "1.2.3.5"
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        x, y, z = ORIGIN_LPS_MM
        header.ImagePositionPatient = [x, y, z + index * SPACING_MM[0]]
        header.PixelSpacing = list(SPACING_MM[1:])
        header.Rows, header.Columns = shape[1:]
        found.append(header)
    return found


ODD_HEADERS = {
    "ACR-NEMA dates": {"StudyDate": "2009.11.22", "StudyTime": "12:14:38", "PatientBirthDate": "19xx"},
    "an age without its unit": {"PatientAge": "71", "StudyDescription": "Z" * 80},
    "a Chinese name": {"SpecificCharacterSet": "GB18030", "PatientName": "王^小东"},
    "a Japanese name": {"SpecificCharacterSet": ["ISO 2022 IR 6", "ISO 2022 IR 87"], "PatientName": "A^B=山田^太郎"},
    "no thickness": {"SliceThickness": "0"},
}


def odd_headers(values: dict[str, object]) -> list[Dataset]:
    """Return headers with these values, one of ODD_HEADERS."""
    source = headers()
    with pydicom.config.disable_value_validation():
        for header in source:
            for name, value in values.items():
                header.pop(name, None)
                setattr(header, name, value)
    return source


def write_case(
    folder: Path, found: np.ndarray | None = None, *, series: SeriesId = SERIES, with_reference: bool = True
) -> dict[str, Path]:
    """Write volume, mask, reference and identity map of the series; return their paths by kind."""
    paths = {kind: folder / f"{series}.{kind}" for kind in ("volume", "mask", "reference")}
    paths["identity"] = folder / f"{series.patient}.identity"
    write_volume(paths["volume"], replace(volume(), id=series))
    volume_hash = read_volume(paths["volume"]).content_hash
    write_mask(paths["mask"], replace(mask(found, volume_hash=volume_hash), id=series))
    if with_reference:
        write_mask(paths["reference"], replace(reference(volume_hash=volume_hash), id=series))
    with IdentityWriter(paths["identity"]) as identities:
        names = [f"{n}.dcm" for n in range(SHAPE[0])]
        identities.add(series, part10_files(headers(), names, [b""] * SHAPE[0]), names)
    return paths


def write_record(folder: Path, step: str, start: str, end: str, **facts: object) -> Path:
    """Write a run record as a step would; `start` and `end` are ISO times with their zone."""
    record: dict[str, object] = {
        "step": step,
        "site": "laptop",
        "host": "desk",
        "device": "cpu (2 cores)",
        "start": start,
        "end": end,
        "seconds": 1.0,
        "items": 0,
        "unit": "",
        "bytes_in": 0,
        "bytes_out": 0,
        "inputs": {},
        "outputs": {},
        "parameters": {},
        "versions": {"slicestream": "0.1.0"},
    }
    path = folder / f"{step}-{len(list(folder.iterdir()))}.run.json"
    path.write_text(json.dumps(record | facts))
    return path


def program(name: str, package: str) -> str:
    """Return where a program is, of this environment or of the system; skip where there is none, but fail in CI."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} (package {package}) must be there in CI")
        pytest.skip(f"{name} (package {package}) is not installed")
    return found


def dciodvfy(path: Path) -> str:
    """Return what dciodvfy says of a file."""
    words = [program("dciodvfy", "dicom3tools"), path]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    return said.stdout + said.stderr
