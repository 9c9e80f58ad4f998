"""Full-frame chest CT with known nodules: the lung mask loses none, and batches change nothing."""

from pathlib import Path

import numpy as np
import pytest

from slicestream.__main__ import main
from slicestream.inference.model import load_model
from slicestream.inference.predict import predict
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


def test_batches_and_threads_change_no_bit_on_real_slices(chests, tmp_path):
    model = write_random_model(tmp_path / "model.onnx")
    hu = min((read_volume(path).hu for path in chests), key=len)
    one, two = (load_model(model, threads=n) for n in (1, 2))
    wanted = predict(one, hu, batch_size=1)
    assert wanted.max() > wanted.min()
    for batch_size in (2, 3, 8):
        assert np.array_equal(predict(two, hu, batch_size=batch_size), wanted)
