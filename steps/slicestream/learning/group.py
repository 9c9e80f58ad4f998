"""The processes that train one network together, each with its part of every batch; one alone, unless `joined`.

All of them draw the random numbers of whole batches, see the loss of the whole batch and step along the mean of their
gradients: chance, weights and decisions are the same in each, and those of one process within rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, distributed, nn

_Found = TypeVar("_Found")
_Network = TypeVar("_Network", bound=nn.Module)


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """Which of `size` processes this is, and which of the `local_size` on its machine; both counted from 0."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def launched(cls) -> Self:
        """Return what torch's launcher says that this process is."""
        rank, size = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
        local_rank, local_size = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
        return cls(rank=rank, size=size, local_rank=local_rank, local_size=local_size)


@contextmanager
def joined(member: Member, device: torch.device) -> Iterator[None]:
    """Work together with the others while the block lasts; a member that is alone does without."""
    if member.size == 1:
        yield
        return
    distributed.init_process_group("gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def size() -> int:
    """Return how many processes work together now."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def part(n: int) -> slice:
    """Return which of `n` things are this process's: neighbours, as many as the others have or one more."""
    rank = distributed.get_rank() if size() > 1 else 0
    each, more = divmod(n, size())
    start = rank * each + min(rank, more)
    return slice(start, start + each + (rank < more))


def gathered(own: Tensor, counts: Sequence[int]) -> Tensor:
    """Return (sum of `counts`, …) of all processes, from `own` parts of so many each, in the order of one process.

    Differentiable: every process should make its loss of the whole, and take the mean of the gradients.
    """
    if size() == 1:
        return own
    number = torch.arange(sum(counts), device=own.device)
    at = torch.cat([several[part(len(several))] for several in torch.split(number, list(counts))])
    return _total(own.new_zeros((len(number), *own.shape[1:])).index_copy(0, at, own))


def collected(own: list[_Found]) -> list[_Found]:
    """Return what all processes found, in the order of `part`."""
    if size() == 1:
        return own
    found: list[Any] = [None] * size()
    distributed.all_gather_object(found, own)
    return [one for each in found for one in each]


def from_first(value: _Found) -> _Found:
    """Return what the first process has."""
    if size() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def with_shared_statistics(network: _Network) -> _Network:
    """Let batch norm in training be over the images of all processes; names and values of the state stay."""
    if size() == 1:
        return network
    if next(network.parameters()).is_cuda:
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-any-return, no-untyped-call]
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _SharedBatchNorm
    return network


class _SharedBatchNorm(nn.BatchNorm2d):
    """What torch.nn.SyncBatchNorm is on GPUs, and refuses to be on CPUs."""

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """BxCxHxW, to mean 0 and variance 1 per channel over all processes, then scaled and shifted."""
        if not self.training:
            return super().forward(features_BCHW)
        features = features_BCHW.to(torch.promote_types(features_BCHW.dtype, torch.float32))
        count, mean, variance = _moments(features)
        kept, momentum = dict(self.named_buffers()), self.momentum
        assert momentum is not None
        with torch.no_grad():
            kept["running_mean"].lerp_(mean, momentum)
            kept["running_var"].lerp_(variance * (count / (count - 1)), momentum)
            kept["num_batches_tracked"] += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        centred = features - mean[:, None, None]
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(features_BCHW.dtype)


def _moments(features_BCHW: Tensor) -> tuple[float, Tensor, Tensor]:
    """Return the number of pixels of all processes, their mean and variance per channel.

    The sums are float64: mean and mean square may be close.
    """
    count = features_BCHW.numel() / features_BCHW.shape[1]
    if count:
        variance, mean = (one.double() for one in torch.var_mean(features_BCHW, dim=(0, 2, 3), correction=0))
    else:  # a batch may have fewer images than there are processes
        variance = mean = features_BCHW.double().sum((0, 2, 3))
    sums = _total(torch.stack((torch.ones_like(mean), mean, variance + mean**2)) * count)
    mean, square = sums[1] / sums[0], sums[2] / sums[0]
    return float(sums[0, 0].detach()), mean.to(features_BCHW.dtype), (square - mean**2).to(features_BCHW.dtype)


def _total(own: Tensor) -> Tensor:
    return _Total.apply(own)  # type: ignore[no-any-return, no-untyped-call]


class _Total(torch.autograd.Function):
    """The sum over all processes. Each makes a loss of it, so its slope is the sum of theirs."""

    @staticmethod
    def forward(_: Any, own: Tensor) -> Tensor:
        total = own.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, slope: Tensor) -> Tensor:
        return _Total.forward(context, slope)
