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
from torch.nn import functional

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
        count, mean, variance = _over_all(features_BCHW, self.weight)
        kept, momentum = dict(self.named_buffers()), self.momentum
        assert momentum is not None
        with torch.no_grad():
            kept["running_mean"].lerp_(mean, momentum)
            kept["running_var"].lerp_(variance * (count / (count - 1)), momentum)
            kept["num_batches_tracked"] += 1
        # torch's kernel takes mean and variance as given: their slopes go by way of weight and bias, as 1 and 0
        scale = (variance + self.eps).rsqrt()
        given = mean.detach()
        weight = self.weight * (scale / scale.detach())
        bias = self.bias + self.weight * scale * (given - mean)
        return functional.batch_norm(features_BCHW, given, variance.detach(), weight, bias, eps=self.eps)


def _over_all(features_BCHW: Tensor, weight: Tensor) -> tuple[float, Tensor, Tensor]:
    """Return the number of pixels of all processes, their mean and variance per channel, of the type of `weight`."""
    own = _OwnMoments.apply(features_BCHW, torch.ones_like(weight))  # type: ignore[no-untyped-call]
    mean, variance = (one.double() for one in own)  # mean and mean square may be close
    count = features_BCHW.numel() / len(weight)
    sums = _total(torch.stack((torch.ones_like(mean), mean, variance + mean**2)) * count)
    mean, square = sums[1] / sums[0], sums[2] / sums[0]
    return float(sums[0, 0].detach()), mean.to(weight.dtype), (square - mean**2).to(weight.dtype)


class _OwnMoments(torch.autograd.Function):
    """Mean and variance per channel of one process, by the kernel of batch norm: var_mean takes six times as long."""

    @staticmethod
    def forward(context: Any, features_BCHW: Tensor, ones: Tensor) -> tuple[Tensor, Tensor]:
        if not len(features_BCHW):  # a batch may have fewer images than there are processes
            context.save_for_backward(features_BCHW, torch.zeros_like(ones), ones)
            return torch.zeros_like(ones), torch.zeros_like(ones)
        _, mean, scale = torch.native_batch_norm(features_BCHW, ones, None, None, None, True, 0.0, 0.0)
        context.save_for_backward(features_BCHW, mean, ones)
        return mean, scale**-2

    @staticmethod
    def backward(context: Any, mean_slope: Tensor, variance_slope: Tensor) -> tuple[Tensor, None]:
        features_BCHW, mean, ones = context.saved_tensors
        count = max(1.0, features_BCHW.numel() / len(ones))
        return functional.batch_norm(
            features_BCHW, mean, ones, 2 * variance_slope / count, mean_slope / count, eps=0.0
        ), None


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
