import pytest
import torch

from disc_slices import disc_stack
from slicestream.learning.data import SliceSet
from slicestream.learning.device import Device
from slicestream.learning.networks import architecture_name, build_unet
from slicestream.learning.recipe import RECIPES, Augmentation, Recipe
from slicestream.learning.validation import measure

CPU = Device(torch_device=torch.device("cpu"), bf16=False, threads=1, description="cpu")
RECIPE = Recipe(
    name="tiny",
    widths=(4, 8),
    patch_px=32,
    epochs=2,
    batch_size=4,
    learning_rate=0.01,
    weight_decay=0.0,
    warmup=0.1,
    average=0.5,
    patience=5,
    augmentation=Augmentation(flip=True),
)


class Thresholder(torch.nn.Module):
    """Says nodule where the image is bright, or nowhere."""

    def __init__(self, *, blind: bool = False) -> None:
        super().__init__()
        self.bias = -1e3 if blind else 0.0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (image - 0.6) * 50 + self.bias


def test_output_has_the_size_of_the_input() -> None:
    network = build_unet((4, 8, 16))
    assert network.multiple == 4
    assert network(torch.zeros(2, 1, 20, 36)).shape == (2, 1, 20, 36)
    assert build_unet((4, 8, 16), channels=5)(torch.zeros(2, 5, 20, 36)).shape == (2, 1, 20, 36)


def test_an_untrained_network_finds_nodules_rare() -> None:
    assert torch.sigmoid(build_unet((4, 8))(torch.rand(1, 1, 16, 16))).max() < 0.05


def test_the_papers_network_has_its_channels_and_31_million_parameters() -> None:
    widths = RECIPES["paper"].widths
    assert widths == (64, 128, 256, 512, 1024)
    assert (architecture_name(widths), architecture_name(widths, channels=3)) == ("unet-64x5", "unet-64x5-3")
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build_unet(widths).parameters())
    assert 28e6 < parameters < 35e6


@pytest.mark.parametrize("flips", [False, True])
def test_scores_of_a_perfect_and_a_blind_network(flips: bool) -> None:
    slices = SliceSet.from_stacks([disc_stack(1), disc_stack(2, shape=(48, 32)), disc_stack(3, empty=True)])
    (good,) = measure(Thresholder(), slices, recipe=RECIPE, device=CPU, thresholds=(0.5,), flips=flips)
    (blind,) = measure(Thresholder(blind=True), slices, recipe=RECIPE, device=CPU, thresholds=(0.5,), flips=flips)
    assert (good.iou_pooled, good.dice_pooled, good.iou_per_slice) == (1, 1, 1)
    assert (blind.iou_pooled, blind.dice_pooled, blind.iou_per_slice) == (0, 0, 0)


def test_pooled_and_per_slice_iou_differ_as_defined() -> None:
    stack = disc_stack(1, slices=2)
    stack.nodule[:] = 0
    stack.hu[:] = -800
    stack.nodule[0, :4, :4] = stack.nodule[1, :8, :8] = 1  # 16 and 64 px
    stack.hu[0, :4, :2] = stack.hu[1, :8, :8] = 0  # half of the small one, all of the large one
    slices = SliceSet.from_stacks([stack])
    (score,) = measure(Thresholder(), slices, recipe=RECIPE, device=CPU, thresholds=(0.5,), flips=False)
    assert score.iou_pooled == pytest.approx(72 / 80)
    assert score.iou_per_slice == pytest.approx((0.5 + 1) / 2)
    assert score.dice_pooled == pytest.approx(144 / 152)
