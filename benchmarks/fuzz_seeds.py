"""What `fuzz.py` starts from: a small CT slice in each transfer syntax, and files that pydicom carries."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

ROWS, COLUMNS = 48, 64
HTJ2K = Path(__file__).parents[1] / "tests" / "dicom" / "data" / "htj2k_unsigned_16.j2c"
CARRIED = (
    "CT_small",
    "693_J2KI",
    "J2K_pixelrep_mismatch",
    "MR_small_RLE",
    "MR_small_implicit",
    "nested_priv_SQ",
    "rtplan",
)


def plain_slice(**header: Any) -> Dataset:
    """Return one uncompressed CT slice with the elements that a scanner writes."""
    image, stored = Dataset(), np.add.outer(np.arange(ROWS) * 61, np.arange(COLUMNS) * 29) % 4096
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = CTImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = "1.2.826.0.1.3680043.10.1.3"
    texts = {"Modality": "CT", "PatientID": "P1", "PatientName": "Müller^Ä", "SpecificCharacterSet": "ISO_IR 100"}
    numbers = {"SliceThickness": "2.5", "RescaleIntercept": "-1024", "RescaleSlope": "1", "KVP": "120"}
    places = {
        "ImagePositionPatient": [0, 0, 5],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.7, 0.7],
    }
    cells = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0, "SamplesPerPixel": 1}
    size = {"Rows": ROWS, "Columns": COLUMNS, "PhotometricInterpretation": "MONOCHROME2"}
    uids = {"StudyInstanceUID": "1.2.3.4", "SeriesInstanceUID": "1.2.3.5", "FrameOfReferenceUID": "1.2.3.6"}
    for name, value in {**texts, **numbers, **places, **cells, **size, **uids, **header}.items():
        setattr(image, name, value)
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "121326", "DCM", "Alternate"
    image.ProcedureCodeSequence = [purpose, purpose]
    image.add_new("PixelPaddingValue", "US", 4095)
    image.private_block(0x0009, "SCANNER", create=True).add_new(1, "UN", b"\1\2\3\4")
    image.PixelData = stored.astype("<u2").tobytes()
    return image


def in_syntax(syntax: UID) -> bytes:
    """Return a file of the plain slice in a transfer syntax."""
    image, target = plain_slice(), io.BytesIO()
    if syntax == JPEGLosslessSV1:
        return by_gdcm(image)
    if syntax == HTJ2KLossless:
        image.PixelData = encapsulate([HTJ2K.read_bytes()])
        image["PixelData"].VR, image["PixelData"].is_undefined_length = "OB", True
    elif syntax == JPEG2000:
        image.compress(syntax, j2k_cr=[5])
    elif syntax.is_encapsulated:
        image.compress(syntax)
    elif syntax == ExplicitVRBigEndian:
        image.PixelData = np.frombuffer(image.PixelData, "<u2").byteswap().tobytes()
    image.file_meta.TransferSyntaxUID = syntax
    little, implicit = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    image.save_as(target, enforce_file_format=True, little_endian=little, implicit_vr=implicit)
    return target.getvalue()


def by_gdcm(image: Dataset) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "a.dcm", Path(folder) / "b.dcm"
        image.save_as(source, enforce_file_format=True)
        tool = Path(sys.executable).with_name("gdcmconv")
        subprocess.run([tool, "--jpeg", source, target], check=True, capture_output=True)
        return target.read_bytes()


def seeds() -> dict[str, bytes]:
    """Return the files that inputs are made from, by name."""
    syntaxes = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
    syntaxes += (RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, JPEG2000, HTJ2KLossless)
    made = {syntax.keyword: in_syntax(syntax) for syntax in syntaxes}
    made |= {name: carried(name) for name in CARRIED}
    made["no DICOM"] = bytes(range(256)) * 8
    return made


def carried(name: str) -> bytes:
    """Return a file that pydicom carries, as CT where it is an image: else its modality would end most readings."""
    image, target = dcmread(str(get_testdata_file(f"{name}.dcm"))), io.BytesIO()
    if "PixelData" in image:
        image.Modality, image.SOPClassUID, image.file_meta.MediaStorageSOPClassUID = (
            "CT",
            CTImageStorage,
            CTImageStorage,
        )
        for keyword, value in (("RescaleSlope", "1"), ("RescaleIntercept", "-1024")):
            setattr(image, keyword, getattr(image, keyword, value))
    image.save_as(target)
    return target.getvalue()
