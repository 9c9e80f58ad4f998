"""Where and how precisely to compute: chosen at run time, recorded by the step."""

from __future__ import annotations

import os
import socket
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from slicestream.errors import OptionError
from slicestream.learning.group import Member

_FAST_BF16 = {"avx512_bf16", "amx_bf16"}  # elsewhere bf16 is emulated and slower than float32


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A device, whether convolutions run in bfloat16 on it, the threads used (CPU), and how to call it in a record."""

    torch_device: torch.device
    bf16: bool
    threads: int
    description: str

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context that a forward pass runs in."""
        return torch.autocast(self.torch_device.type, torch.bfloat16, enabled=self.bf16)


def choose_device(asked: str, *, threads: int | None = None, member: Member | None = None) -> Device:
    """Return the device of a process for "auto", "cpu" or "cuda", and make torch deterministic. Raises OptionError."""
    cuda, member = torch.cuda.is_available(), member or Member()
    if asked not in ("auto", "cpu", "cuda"):
        raise OptionError(f"SLICESTREAM_DEVICE {asked}: need auto, cpu or cuda.")
    if asked == "cuda" and not cuda:
        raise OptionError(
            f"--device cuda: no usable CUDA GPU on {socket.gethostname()}; need one with its driver. "
            "Use --device auto or cpu; on a site, ask for a GPU, or set SLICESTREAM_DEVICE=cpu in its site.env."
        )
    count = threads or max(1, len(os.sched_getaffinity(0)) // member.local_size)
    torch.set_num_threads(count)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    if asked == "cpu" or not cuda:
        bf16 = bool(_FAST_BF16 & _cpu_flags())
        text = f"cpu ({count} threads, {'bfloat16' if bf16 else 'float32'})"
        return Device(torch_device=torch.device("cpu"), bf16=bf16, threads=count, description=text)
    bf16 = torch.cuda.is_bf16_supported()
    torch.cuda.set_device(member.local_rank)
    text = f"cuda ({torch.cuda.get_device_name()}, {'bfloat16' if bf16 else 'float32'})"
    return Device(torch_device=torch.device("cuda", member.local_rank), bf16=bf16, threads=count, description=text)


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())
