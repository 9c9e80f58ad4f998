from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from slicestream.dicom.nifti import write_nifti
from slicestream.errors import OutputError
from slicestream.volumes.geometry import Geometry

# row index grows to the left foot, column to the right: an oblique, asymmetric frame
TILT = np.deg2rad(20.0)
GEOMETRY = Geometry(
    shape=(4, 5, 6),
    spacing_mm=(3.0, 0.5, 0.75),
    direction_lps=(
        (0.0, -float(np.sin(TILT)), float(np.cos(TILT))),
        (0.0, float(np.cos(TILT)), float(np.sin(TILT))),
        (1.0, 0.0, 0.0),
    ),
)
ORIGIN_LPS_MM = (10.0, -20.0, 35.0)


def test_one_voxel_off_every_centre_keeps_its_patient_coordinate(tmp_path: Path) -> None:
    voxels = np.zeros(GEOMETRY.shape, np.int16)
    voxels[3, 1, 4] = -1024
    path = tmp_path / "object.nii.gz"
    write_nifti(path, voxels, GEOMETRY, ORIGIN_LPS_MM)
    image = SimpleITK.ReadImage(str(path))
    assert image[4, 1, 3] == -1024
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), voxels)
    expected = np.array(ORIGIN_LPS_MM) + GEOMETRY.offset_lps_mm(np.array([3.0, 1.0, 4.0]))
    assert np.allclose(image.TransformIndexToPhysicalPoint((4, 1, 3)), expected, atol=1e-4)
    assert [entry.name for entry in tmp_path.iterdir()] == ["object.nii.gz"]


def test_labels_keep_their_type_and_values(tmp_path: Path) -> None:
    labels = np.arange(120, dtype=np.uint16).reshape(4, 5, 6)
    write_nifti(tmp_path / "mask.nii.gz", labels, GEOMETRY, ORIGIN_LPS_MM)
    image = SimpleITK.ReadImage(str(tmp_path / "mask.nii.gz"))
    assert image.GetPixelID() == SimpleITK.sitkUInt16
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), labels)


def test_a_file_cut_short_on_a_full_disk_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The writer prints an error and goes on; here as it leaves a file on a full disk.
    def on_full_disk(image: object, path: str, **_: object) -> None:
        Path(path).write_bytes(gzip.compress(bytes(900))[:20])

    monkeypatch.setattr(SimpleITK, "WriteImage", on_full_disk)
    with pytest.raises(OutputError, match="disk full"):
        write_nifti(tmp_path / "cut.nii.gz", np.zeros(GEOMETRY.shape, np.int16), GEOMETRY, ORIGIN_LPS_MM)
    assert list(tmp_path.iterdir()) == []
