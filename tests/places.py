"""Series without pixels for tests of annotations: where they lie, their headers, and objects of known shape on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from slicestream.dicom.annotations.drawing import SeriesPlace
from slicestream.volumes.geometry import Geometry

SERIES, FRAME = "1.2.826.0.1.3680043.10.1.77", "1.2.826.0.1.3680043.10.1.78"
AXIAL = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


def oblique() -> NDArray[np.float64]:
    """Return slice, row and column direction, turned about all three axes."""
    a, b, c = np.deg2rad((12.0, -17.0, 25.0))
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.round((x @ y @ z @ AXIAL.T).T, 9)


def place(
    shape: tuple[int, int, int] = (8, 40, 48),
    *,
    spacing_mm: tuple[float, float, float] = (2.5, 0.7, 0.8),
    direction: NDArray[np.float64] = AXIAL,
    origin_lps_mm: tuple[float, float, float] = (-100.0, -50.5, 30.25),
    series: str = SERIES,
    frame: str = FRAME,
) -> SeriesPlace:
    axes = tuple(tuple(float(n) for n in axis) for axis in direction)
    return SeriesPlace(
        uid=series,
        frame_of_reference_uid=frame,
        instance_uids=tuple(f"{series}.{n + 1}" for n in range(shape[0])),
        geometry=Geometry(shape=shape, spacing_mm=spacing_mm, direction_lps=axes),
        origin_lps_mm=origin_lps_mm,
    )


def headers(where: SeriesPlace) -> list[Dataset]:
    """Return a header per slice of a place, complete enough for what other libraries write from it."""
    found = []
    slices, rows, columns = where.geometry.shape
    _, along_row, along_column = where.geometry.direction_lps
    for index in range(slices):
        header = Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, where.instance_uids[index]
        header.StudyDate, header.StudyTime, header.AccessionNumber, header.Modality = "20000101", "120000", "", "CT"
        header.PatientName, header.PatientID, header.PatientBirthDate, header.PatientSex = "A^B", "LAB-1", "", ""
        header.StudyInstanceUID, header.SeriesInstanceUID, header.StudyID = "1.2.3", where.uid, ""
        header.SeriesNumber, header.InstanceNumber, header.ReferringPhysicianName = 1, index + 1, ""
        header.FrameOfReferenceUID, header.PositionReferenceIndicator = where.frame_of_reference_uid, ""
        header.ImageOrientationPatient = [round(n, 9) for n in (*along_column, *along_row)]
        offset = where.geometry.offset_lps_mm(np.array([index, 0.0, 0.0]))
        header.ImagePositionPatient = [round(float(n), 6) for n in np.array(where.origin_lps_mm) + offset]
        header.PixelSpacing, header.SliceThickness = list(where.geometry.spacing_mm[1:]), where.geometry.spacing_mm[0]
        header.Rows, header.Columns = rows, columns
        found.append(header)
    return found


def points(where: SeriesPlace) -> NDArray[np.float64]:
    """Return the patient coordinates of every voxel centre, (slice, row, column, 3), mm LPS."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in where.geometry.shape), indexing="ij"), axis=-1)
    return np.asarray(where.geometry.offset_lps_mm(index.astype(np.float64)) + np.array(where.origin_lps_mm))


def blobs() -> NDArray[np.uint16]:
    """Three objects of (8, 40, 48), no two alike and none symmetric with another: labels 1, 2 and 3."""
    labels = np.zeros((8, 40, 48), np.uint16)
    labels[1:3, 4:10, 30:41] = 1
    labels[2:6, 20:33, 8:12] = 2
    labels[6, 35, 44:46] = 3
    return labels


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())
