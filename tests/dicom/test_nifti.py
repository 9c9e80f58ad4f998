from __future__ import annotations

import gzip
import struct
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


def ras_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI-1 file without any library: voxels by (i, j, k) and the affine to RAS that its header states."""
    data = gzip.decompress(path.read_bytes())
    assert struct.unpack_from("<i", data, 0) == (348,)
    columns, rows, slices = struct.unpack_from("<3h", data, 42)
    (form,) = struct.unpack_from("<h", data, 254)
    assert form > 0  # the sform is there
    affine = np.array(struct.unpack_from("<12f", data, 280)).reshape(3, 4)
    (offset,) = struct.unpack_from("<f", data, 108)
    voxels = np.frombuffer(data, "<i2", columns * rows * slices, int(offset))
    return voxels.reshape(columns, rows, slices, order="F"), affine


@pytest.mark.parametrize(
    ("geometry", "name"), [(GEOMETRY, "oblique"), (Geometry(shape=(4, 5, 6), spacing_mm=(3.0, 0.5, 0.75)), "axial")]
)
def test_an_asymmetric_object_lands_where_it_should_in_ras(geometry: Geometry, name: str, tmp_path: Path) -> None:
    # an L of four voxels that no mirroring or turning maps to itself
    voxels = np.zeros(geometry.shape, np.int16)
    places = [(0, 0, 0), (0, 0, 1), (0, 3, 0), (2, 0, 0)]
    for value, place in enumerate(places, start=1):
        voxels[place] = value
    write_nifti(tmp_path / f"{name}.nii.gz", voxels, geometry, ORIGIN_LPS_MM)
    found, affine = ras_of(tmp_path / f"{name}.nii.gz")
    for value, place in enumerate(places, start=1):
        (index,) = np.argwhere(found == value)
        x, y, z = np.array(ORIGIN_LPS_MM) + geometry.offset_lps_mm(np.array(place, float))
        # NIfTI: x to the right, y to the front
        assert affine @ [*index, 1] == pytest.approx((-x, -y, z), abs=1e-3)
    assert int(np.count_nonzero(found)) == 4


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
