"""Full-frame chest CT with known nodules: the lung mask loses none, and batches change nothing."""

from pathlib import Path

import numpy as np
import pytest

from slicestream.__main__ import main
from slicestream.inference.model import load_model
from slicestream.inference.predict import predict
from slicestream.inference.region import around, whole
from slicestream.volumes.lungs import find_lungs
from slicestream.volumes.mask import read_mask
from slicestream.volumes.volume import read_volume
from tiny_model import write_random_model

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def chests(data, tmp_path_factory):
    """Return the volumes of the full-frame cohort; each has its reference beside it."""
    folder = tmp_path_factory.mktemp("chests")
    (folder / "key").write_text("a key for this test only")
    cohort, key = str(data / "fullframe-open"), str(folder / "key")
    assert main(["preprocess", "--cohort", cohort, "--pseudonym-key", key, "--out", str(folder)]) == 0
    return sorted(folder.glob("*.volume"))


def nodule_shares(path: Path):
    volume, drawn = read_volume(path), read_mask(path.with_suffix(".reference"), "reference")
    lungs = find_lungs(volume.hu, volume.geometry)
    assert lungs.inside is not None
    return lungs.share_inside(drawn.labels, np.bincount(drawn.labels.reshape(-1)))[1:]


def test_all_32_nodules_lie_inside_the_lung_mask(chests):
    shares = np.concatenate([nodule_shares(path) for path in chests])
    assert len(shares) == 32
    assert shares.min() == 1.0


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_batches_and_threads_change_no_bit_on_real_slices(chests, tmp_path, precision):
    model = write_random_model(tmp_path / "model.onnx")
    hu = min((read_volume(path).hu for path in chests), key=len)
    wanted, *others = (
        predict(load_model(model, threads=threads, at_once=at_once, precision=precision), hu, whole(hu.shape))
        for threads, at_once in ((1, 1), (2, 1), (2, 2), (1, 8))
    )
    assert wanted.max() > wanted.min()
    for other in others:
        assert np.array_equal(other, wanted)


def test_the_network_looks_at_all_lungs_and_nodules_and_at_less_than_three_quarters(chests):
    for path in chests:
        volume, drawn = read_volume(path), read_mask(path.with_suffix(".reference"), "reference")
        lungs = find_lungs(volume.hu, volume.geometry)
        seen = np.zeros(volume.hu.shape, bool)
        for plane, window in zip(seen, around(lungs, volume.geometry), strict=True):
            if window:
                plane[window] = True
        assert seen[drawn.labels > 0].all()
        assert lungs.share_inside((~seen).astype(np.uint32), np.bincount((~seen).reshape(-1)))[1] == 0
        assert 0.2 < seen.mean() < 0.75
