import numpy as np
import pytest
import torch

from disc_slices import disc_stack
from slicestream.learning.augment import make_batch
from slicestream.learning.data import SliceSet
from slicestream.learning.recipe import Augmentation
from slicestream.volumes.volume import Window

STACK = disc_stack(1, slices=8)
SLICES = SliceSet.from_stacks([STACK])
ALL = torch.arange(8)


def batch(
    augmentation: Augmentation, *, patch: int = 32, slices: SliceSet = SLICES, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return make_batch(
        slices,
        torch.arange(len(slices)),
        patch=patch,
        window=Window(),
        augmentation=augmentation,
        generator=generator,
    )


def test_without_augmentation_a_patch_of_the_slices_size_is_the_slice() -> None:
    image, mask = batch(Augmentation())
    np.testing.assert_allclose(image[:, 0], Window().scale(STACK.hu), atol=1e-5)
    np.testing.assert_array_equal(mask[:, 0], STACK.nodule)


def test_a_larger_patch_has_air_around_the_slice() -> None:
    image, mask = batch(Augmentation(), patch=48)
    np.testing.assert_array_equal(mask[:, 0, 8:40, 8:40], STACK.nodule)
    assert mask.sum() == STACK.nodule.sum()
    assert torch.allclose(image[:, 0, :8], torch.tensor((-1024 + 1300) / 1600))


def test_flips_keep_every_pixel_and_move_some() -> None:
    image, _ = batch(Augmentation(flip=True))
    scaled = Window().scale(STACK.hu)
    for flipped, plain in zip(image[:, 0].numpy(), scaled, strict=True):
        kinds = [plain, plain[::-1], plain[:, ::-1], plain[::-1, ::-1]]
        assert sum(np.allclose(flipped, kind, atol=1e-5) for kind in kinds) == 1
    assert not np.allclose(image[:, 0], scaled, atol=1e-5)


def test_image_and_mask_turn_together() -> None:
    image, mask = batch(Augmentation(rotate=True, flip=True, zoom=1.2))
    inside, outside = image[mask > 0], image[mask == 0]
    assert inside.mean() > 0.7  # 0 HU is 0.81, its rim less
    assert outside.mean() < 0.35  # -800 HU is 0.31


def test_zoom_changes_areas_by_its_square_at_most() -> None:
    plain = STACK.nodule.sum(axis=(1, 2))
    middle = SliceSet.from_stacks([STACK])
    _, mask = batch(Augmentation(zoom=1.3), patch=64, slices=middle)
    ratio = mask.sum((1, 2, 3)).numpy() / plain
    assert np.all(ratio < 1.3**2 * 1.1)
    assert np.all(ratio > 1.3**-2 * 0.9)
    assert ratio.std() > 0.1


def test_crops_at_nodules_hold_some_of_the_nodule_and_not_always_in_the_middle() -> None:
    large = SliceSet.from_stacks([disc_stack(3, slices=16, shape=(128, 96))])
    _, mask = batch(Augmentation(nodule_share=1.0), patch=32, slices=large)
    assert torch.all(mask.sum((1, 2, 3)) > 0)
    centres = [torch.nonzero(one[0]).float().mean(0) for one in mask]
    assert torch.stack(centres).std(0).min() > 3


def test_crops_anywhere_stay_within_the_slice_but_for_the_overhang() -> None:
    large = SliceSet.from_stacks([disc_stack(3, slices=16, shape=(128, 96))])
    air = (-1024 + 1300) / 1600
    image, _ = batch(Augmentation(), patch=32, slices=large)
    assert not torch.any(torch.isclose(image, torch.tensor(air), atol=1e-6).all(dim=3))
    image, _ = batch(Augmentation(overhang_px=16), patch=32, slices=large)
    assert torch.any(torch.isclose(image, torch.tensor(air), atol=1e-6).all(dim=3))


def test_brightness_contrast_and_noise_change_images_and_leave_masks() -> None:
    image, mask = batch(Augmentation(shift_hu=50, gain=0.1, noise_hu=40))
    np.testing.assert_array_equal(mask[:, 0], STACK.nodule)
    change = image[:, 0].numpy() - Window().scale(STACK.hu)
    assert 0.005 < np.abs(change).mean() < (50 + 0.1 * 800 + 2 * 40) / 1600


def test_one_seed_gives_one_batch() -> None:
    strong = Augmentation(rotate=True, flip=True, zoom=1.3, shift_hu=50, gain=0.1, noise_hu=40, nodule_share=0.5)
    first, again, other = (batch(strong, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("wrong", [{"zoom": 0.5}, {"gain": 1.0}, {"nodule_share": 1.5}, {"noise_hu": -1.0}])
def test_impossible_augmentations_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be|are shares"):
        Augmentation(**wrong)  # type: ignore[arg-type]
