"""Two processes that train together against one: the same gradients, decisions and, within rounding, weights."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_scans import chest
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

from disc_slices import disc_stack
from slicestream.errors import OptionError
from slicestream.learning.checkpoint import Checkpoint
from slicestream.learning.data import SliceSet
from slicestream.learning.device import Device
from slicestream.learning.group import Member, from_first, gathered, joined, part, size, with_shared_statistics
from slicestream.learning.losses import loss_of
from slicestream.learning.networks import build_unet
from slicestream.learning.recipe import Augmentation, Loss, Recipe, ScanShares
from slicestream.learning.scans import Scans, find_scans, suspects
from slicestream.learning.training import Epoch, Outcome, train
from slicestream.learning.validation import find, measure

CPU = Device(torch_device=torch.device("cpu"), bf16=False, threads=1, description="cpu")
# of 7 slices: batches of 2, 2, 2 and 1, with one crop of a scan each and none: the second process has no crop, and
# nothing at all of the last batch
RECIPE = Recipe(
    name="test", widths=(4, 8), patch_px=64, epochs=3, batch_size=2, learning_rate=0.01, weight_decay=0.01, warmup=0.1,
    average=0.9, patience=3, scans=ScanShares(crops=0.4, pasted=0.3, revisited=0.4), kept=0.5,
    augmentation=Augmentation(rotate=True, flip=True, zoom=1.2, shift_hu=30, noise_hu=30),
)  # fmt: skip
STACKS = [disc_stack(1, slices=5), chest()]
SLICES, VALIDATION = SliceSet.from_stacks(STACKS), SliceSet.from_stacks([disc_stack(2)])
LOSSES: tuple[Loss, ...] = ("dice_bce", "tversky", "unified_focal")
COUNTS = (5, 1)  # of which a second process takes 2, and none
STOPPED_AFTER = 1


class _StopError(Exception):
    """What a kill is here."""


def scans() -> Scans:
    found = find_scans(STACKS, patch=64)
    assert found is not None
    return found


def step(loss: Loss, count: int) -> dict[str, torch.Tensor]:
    """Return gradients and statistics of one step in float64 on so many images."""
    torch.manual_seed(0)
    network = with_shared_statistics(build_unet((4, 8)).double())
    torch.nn.init.normal_(network.head.weight)
    images, masks = torch.rand(count, 1, 32, 32).double(), (torch.rand(count, 1, 32, 32) > 0.8).double()
    forward = DistributedDataParallel(network) if size() > 1 else network
    logits, target = (gathered(one, [count]) for one in (forward(images[part(count)]), masks[part(count)]))
    loss_of(replace(RECIPE, loss=loss), logits, target).backward()
    gradients = {name: one.grad for name, one in network.named_parameters() if one.grad is not None}
    return {**gradients, **{f"kept {name}": one for name, one in network.named_buffers()}}


def decided() -> dict[str, Any]:
    """Return what one network makes of all slices, in whole batches of two sizes."""
    torch.manual_seed(1)
    network = build_unet((4, 8)).eval()
    torch.nn.init.normal_(network.head.weight)
    torch.nn.init.constant_(network.head.bias, -1.0)
    scores = measure(network, SLICES, recipe=RECIPE, device=CPU, thresholds=(0.3, 0.5), flips=True)
    found = find(network, SLICES, recipe=RECIPE, device=CPU, threshold=0.3)
    generator = torch.Generator().manual_seed(0)
    wrong = suspects(network, SLICES, scans(), recipe=RECIPE, device=CPU, generator=generator)
    return {"scores": str(scores), "found": (found.scores.tolist(), found.hits.tolist()), "wrong": wrong.tolist()}


def trained(checkpoint: Checkpoint | None, *, stop_after: int = 0) -> dict[str, Any]:
    """Return weights and choices of a training in float32."""

    def watch(history: list[Epoch]) -> None:
        if len(history) == stop_after:
            raise _StopError

    outcome: Outcome = train(
        SLICES, VALIDATION, recipe=RECIPE, seed=1, scans=scans(), device=CPU, checkpoint=checkpoint, on_epoch=watch
    )
    history = [(epoch.training_loss, epoch.validation_loss, epoch.learning_rate) for epoch in outcome.history]
    chosen = (outcome.best_epoch, outcome.scores.threshold)
    saved = checkpoint.load() if checkpoint else None
    return {
        "last": saved["network"] if saved else None,
        "weights": outcome.network.state_dict(),
        "history": history,
        "seconds": [epoch.seconds for epoch in outcome.history],
        "chosen": chosen,
        "least": outcome.min_score,
    }


def everything(member: Member, folder: Path) -> dict[str, Any]:
    """Return all of it, as one of the processes that work together."""
    torch.set_num_threads(1)
    first = member.rank == 0
    with joined(member, CPU.torch_device):
        told: dict[str, Any] = {f"{loss} {count}": step(loss, count) for loss in LOSSES for count in COUNTS}
        told |= {"decided": decided(), "told": from_first(member.rank)}
        for way in ("trained", "resumed"):
            told[way] = trained(Checkpoint(folder / way) if first else None)
        told["refused"] = refused()
    return told


def refused() -> str:
    """Return what is said of batches of one image."""
    try:
        train(
            SLICES, VALIDATION, recipe=replace(RECIPE, batch_size=1, epochs=1), seed=1, device=CPU, checkpoint=None,
            on_epoch=lambda _: None,
        )  # fmt: skip
    except OptionError as error:
        return str(error)
    return ""


def work(rank: int, port: int, folder: Path) -> None:
    """Be one of two processes; leave what was found in `folder`."""
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.save(everything(Member(rank=rank, size=2), folder), folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    (folder / "trained").mkdir()
    (folder / "resumed").mkdir()
    return everything(Member(), folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("both")
    (folder / "trained").mkdir()
    (folder / "resumed").mkdir()
    with pytest.raises(_StopError):
        trained(Checkpoint(folder / "resumed"), stop_after=STOPPED_AFTER)
    saved = Checkpoint(folder / "resumed").load()
    assert saved is not None
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    start_processes(work, args=(port, folder), nprocs=2)
    seconds = [epoch["seconds"] for epoch in saved["history"]]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) | {"seconds": seconds} for rank in range(2)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_and_statistics_are_those_of_the_whole_batch(
    loss: Loss, count: int, alone: dict[str, Any], both: list[dict[str, Any]]
) -> None:
    for name, value in alone[f"{loss} {count}"].items():
        for one in both:
            torch.testing.assert_close(one[f"{loss} {count}"][name], value, rtol=1e-9, atol=1e-12, msg=name)


def test_what_is_measured_and_found_is_the_same_to_the_bit(alone: dict[str, Any], both: list[dict[str, Any]]) -> None:
    assert alone["decided"]["found"][0]
    assert alone["decided"]["wrong"]
    assert all(one["decided"] == alone["decided"] for one in both)


@pytest.mark.parametrize("way", ["trained", "resumed"])
def test_two_processes_train_as_one_within_rounding(
    way: str, alone: dict[str, Any], both: list[dict[str, Any]]
) -> None:
    one, two = alone["trained"], both[0][way]
    assert len(two["history"]) == RECIPE.epochs
    for mine, others in zip(one["history"], two["history"], strict=True):
        assert others == pytest.approx(mine, rel=1e-5)
    assert two["chosen"] == one["chosen"]
    assert two["least"] == pytest.approx(one["least"], rel=1e-3)
    for name, weight in one["last"].items():
        torch.testing.assert_close(two["last"][name], weight, rtol=1e-3, atol=1e-4, msg=name)


def test_a_run_goes_on_with_another_number_of_processes(both: list[dict[str, Any]]) -> None:
    for one in both:
        assert len(one["seconds"]) == STOPPED_AFTER
        assert one["resumed"]["seconds"][:STOPPED_AFTER] == one["seconds"]  # as one process left it
        assert one["trained"]["seconds"][:STOPPED_AFTER] != one["seconds"]


def test_all_processes_end_with_the_same_weights(both: list[dict[str, Any]]) -> None:
    for way in ("trained", "resumed"):
        first, second = (one[way] for one in both)
        assert first["history"] == second["history"]
        assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
    assert [one["told"] for one in both] == [0, 0]


def test_a_state_is_called_the_same_whoever_shares_it(alone: dict[str, Any], both: list[dict[str, Any]]) -> None:
    assert list(both[0]["trained"]["weights"]) == list(alone["trained"]["weights"])


def test_more_processes_than_a_batch_has_images_are_refused(alone: dict[str, Any], both: list[dict[str, Any]]) -> None:
    assert not alone["refused"]
    assert all(
        "2 processes, but recipe test makes batches of 1 slices; need one each" in one["refused"] for one in both
    )
