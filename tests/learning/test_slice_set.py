import numpy as np
import torch

from disc_slices import disc_stack
from slicestream.learning.data import SliceSet
from slicestream.volumes.volume import Window

SIZES = ((32, 32), (40, 24), (32, 32))
STACKS = [disc_stack(n, slices=2, shape=shape) for n, shape in enumerate(SIZES)]


def test_slices_of_different_sizes_come_back_unchanged() -> None:
    slices = SliceSet.from_stacks(STACKS)
    assert len(slices) == 6
    image, mask = slices.images(torch.tensor([2, 3]), Window(), 8)
    np.testing.assert_allclose(image[:, 0], Window().scale(STACKS[1].hu), atol=1e-6)
    np.testing.assert_array_equal(mask[:, 0], STACKS[1].nodule)


def test_slices_are_filled_with_air_up_to_the_multiple() -> None:
    image, mask = SliceSet.from_stacks(STACKS).images(torch.tensor([2]), Window(low_hu=-1424, high_hu=-624), 16)
    assert image.shape == (1, 1, 48, 32)
    assert torch.all(image[0, 0, 40:] == 0.5)
    assert torch.all(image[0, 0, :, 24:] == 0.5)
    assert mask[0, 0, 40:].sum() == 0


def test_whole_slices_are_batched_by_size_each_once() -> None:
    batches = list(SliceSet.from_stacks(STACKS).whole(3 * 32 * 32))
    assert sorted(torch.cat(batches).tolist()) == [0, 1, 2, 3, 4, 5]
    assert max(len(batch) for batch in batches) == 3
    assert all(len({SIZES[i // 2] for i in batch.tolist()}) == 1 for batch in batches)


def test_nodule_pixels_are_nodule_pixels() -> None:
    slices = SliceSet.from_stacks(STACKS)
    draws = torch.linspace(0, 0.999, 50)
    for number in range(6):
        at = slices.nodule_pixel(torch.full((50,), number), draws).floor().long()
        assert np.all(STACKS[number // 2].nodule[number % 2][at[:, 0], at[:, 1]] == 1)


def test_side_holds_the_largest_slice() -> None:
    assert SliceSet.from_stacks(STACKS).side(16) == 48
