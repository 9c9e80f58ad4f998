import numpy as np
import pytest

from made import HASH, mask, reference, series_id
from slicestream.errors import ArtefactError
from slicestream.volumes.artefact import write_artefact
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.mask import Mask, read_mask
from slicestream.volumes.slices import SliceStack, read_slices

TILTED = ((0.0, -0.6, 0.8), (0.0, 0.8, 0.6), (1.0, 0.0, 0.0))
LABELS = np.zeros((2, 3, 4), np.uint16)


def test_offset_of_an_index_follows_spacing_and_direction():
    geometry = Geometry(shape=(9, 9, 9), spacing_mm=(2.0, 0.5, 0.25), direction_lps=TILTED)
    offsets = geometry.offset_lps_mm(np.array([[1.0, 0, 0], [0, 2, 0], [0, 0, 4], [1, 2, 4]]))
    assert offsets == pytest.approx(np.array([[0, -1.2, 1.6], [0, 0.8, 0.6], [1, 0, 0], [1, -0.4, 2.2]]))
    assert geometry.voxel_mm3 == 0.25


def test_geometry_comes_back_from_its_header():
    geometry = Geometry(shape=(9, 8, 7), spacing_mm=(2.0, 0.5, 0.25), direction_lps=TILTED)
    assert Geometry.from_header(geometry.to_header()) == geometry


@pytest.mark.parametrize(("shape", "spacing_mm"), [((0, 1, 1), (1.0, 1.0, 1.0)), ((1, 1, 1), (1.0, 0.0, 1.0))])
def test_empty_grid_or_spacing_is_refused(shape, spacing_mm):
    with pytest.raises(ValueError, match="must be positive"):
        Geometry(shape=shape, spacing_mm=spacing_mm)


def test_mask_of_unknown_kind_or_wrong_shape_is_refused():
    given = mask(LABELS)
    with pytest.raises(ValueError, match="kind 'drawing'"):
        Mask(kind="drawing", id=series_id(), labels=LABELS, geometry=given.geometry, volume_hash=HASH)
    with pytest.raises(ValueError, match="do not fit geometry"):
        Mask(kind="mask", id=series_id(), labels=LABELS[:1], geometry=given.geometry, volume_hash=HASH)


def test_sealed_mask_and_slices_without_their_fields_are_refused(tmp_path):
    header = {"patient": "0" * 16, "series": "1" * 16, **reference(LABELS).geometry.to_header()}
    write_artefact(tmp_path / "a.mask", "mask", header, {"labels": LABELS})
    with pytest.raises(ArtefactError, match=r"a\.mask: not a usable mask \('volume_hash'\)"):
        read_mask(tmp_path / "a.mask", "mask")
    write_artefact(tmp_path / "a.slices", "slices", {"stacks": [{"patient": "0" * 16}]}, {})
    with pytest.raises(ArtefactError, match=r"a\.slices: not usable training slices"):
        read_slices(tmp_path / "a.slices")


def test_slices_and_masks_of_two_sizes_are_refused():
    hu, nodule = np.zeros((2, 4, 4), np.int16), np.zeros((2, 4, 5), np.uint8)
    with pytest.raises(ValueError, match="differ"):
        SliceStack.of_series(series_id(), hu=hu, nodule=nodule, spacing_mm=(1.0, 1.0, 1.0))
