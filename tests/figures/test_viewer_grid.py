"""What the viewer is handed lies where the scan does, voxel by voxel, and comes back whole."""

from __future__ import annotations

import base64
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

import made
from slicestream.figures.viewer.case import entry
from slicestream.figures.viewer.grid import nifti_header, view_grid
from slicestream.figures.viewer.packing import PIECE_CHARACTERS, pack_hu, pack_labels
from slicestream.volumes.geometry import Geometry

SHAPE, SPACING_MM = (4, 5, 6), (2.5, 0.7, 0.8)
TURN = np.radians(30.0)
DIRECTIONS = {
    "supine, slices to the head": ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    "slices to the feet": ((0, 0, -1), (0, 1, 0), (-1, 0, 0)),
    "prone": ((0, 0, 1), (0, -1, 0), (-1, 0, 0)),
    "mirrored rows": ((0, 0, 1), (0, -1, 0), (1, 0, 0)),
    "coronal": ((0, 1, 0), (0, 0, -1), (1, 0, 0)),
    "sagittal": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "oblique": ((0, -np.sin(TURN), np.cos(TURN)), (0, np.cos(TURN), np.sin(TURN)), (1, 0, 0)),
}


def geometry(direction: tuple[tuple[float, ...], ...]) -> Geometry:
    along_slice, along_row, along_column = ((float(x), float(y), float(z)) for x, y, z in direction)
    return Geometry(shape=SHAPE, spacing_mm=SPACING_MM, direction_lps=(along_slice, along_row, along_column))


@pytest.mark.parametrize("name", DIRECTIONS)
def test_simpleitk_finds_every_voxel_where_the_scan_has_it(name: str, tmp_path: Path) -> None:
    hu = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    grid, of = view_grid(geometry(DIRECTIONS[name])), geometry(DIRECTIONS[name])
    path = tmp_path / "one.nii"
    path.write_bytes(nifti_header(grid) + np.ascontiguousarray(grid.arrange(hu)).astype("<i2").tobytes())
    image = SimpleITK.ReadImage(path)
    for index in product(*map(range, SHAPE)):
        there = image.TransformPhysicalPointToContinuousIndex([float(mm) for mm in of.offset_lps_mm(np.array(index))])
        assert np.allclose(there, np.round(there), atol=1e-3)
        voxel = [round(n) for n in there]
        assert image[voxel] == hu[index]
        assert voxel == [round(n) for n in grid.place((index[0], index[1], index[2]))]


@pytest.mark.parametrize("name", DIRECTIONS)
def test_the_viewers_axes_run_to_the_right_the_front_and_the_head(name: str) -> None:
    grid = view_grid(geometry(DIRECTIONS[name]))
    assert (np.diag(grid.affine)[:3] > 0).all()
    assert np.abs(grid.affine[:3, :3]).argmax(axis=0).tolist() == [0, 1, 2]


def unpacked(pieces: list[str]) -> bytes:
    return zlib.decompress(b"".join(base64.b64decode(piece) for piece in pieces))


def test_hu_come_back_from_their_packing_bit_by_bit() -> None:
    random = np.random.default_rng(0)
    hu = random.integers(-32768, 32767, (3, 7, 8), np.int16, endpoint=True)
    hu[0, 0] = [-32768, 32767, -32768, 0, 1, -1, 32767, 32767]
    found = np.empty_like(hu)
    for n, block in enumerate(np.frombuffer(unpacked(pack_hu(hu)), np.uint8).reshape(3, 2, 7, 8).astype(int)):
        folded = block[0] * 256 + block[1]
        steps = (folded >> 1) ^ -(folded & 1)
        found[n] = np.cumsum(steps, axis=1).astype(np.int16)
    assert (found == hu).all()


def test_noise_like_that_of_a_scan_needs_about_half_of_its_bytes_as_text() -> None:
    hu = np.random.default_rng(0).normal(40, 12, (4, 128, 128)).round().astype(np.int16)
    size = sum(map(len, pack_hu(hu)))
    assert size < 0.55 * hu.nbytes
    assert size < 0.9 * len(base64.b64encode(zlib.compress(hu.tobytes(), 9)))


def test_long_streams_come_in_pieces_that_decode_one_by_one() -> None:
    labels = np.random.default_rng(0).integers(0, 256, (5, 1024, 1024)).astype(np.uint8)
    pieces = pack_labels(labels)
    assert len(pieces) == 2
    assert len(pieces[0]) == PIECE_CHARACTERS
    assert unpacked(pieces) == labels.tobytes()


def test_a_bent_nodule_is_shown_at_a_voxel_of_its_own() -> None:
    labels = np.zeros((3, 9, 9), np.uint16)
    labels[1, 1:8, 1:8] = 1
    labels[1, 2:7, 2:7] = 0  # a ring: its centroid is not in it
    (nodule,) = entry(made.volume(np.zeros((3, 9, 9))), made.mask(labels), None)["nodules"]
    x, y, z = nodule["at"]
    assert labels[z, 8 - y, 8 - x] == 1
    assert nodule["slice"] == 1
