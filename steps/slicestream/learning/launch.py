"""Starting the processes that train together, here or on Slurm nodes, by torch's launcher: what `torchrun` runs."""

from __future__ import annotations

import logging
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from slicestream import errors
from slicestream.errors import OptionError, SliceStreamError, TrainingError
from slicestream.learning.group import Member

_PORTS = range(15_000, 25_000)  # below those that systems give out by themselves
_NOTICED_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Nodes:
    """The machines that train together: how many, which of them this is, where the first one is reached."""

    count: int = 1
    number: int = 0
    first: str = "localhost"
    job: str = "0"

    @classmethod
    def of_slurm(cls, environment: Mapping[str, str]) -> Self:
        """Return the nodes of the job step that `srun` made, this machine alone without one. Raises OptionError."""
        count, tasks = (int(environment.get(f"SLURM_STEP_NUM_{what}", 1)) for what in ("NODES", "TASKS"))
        if count == 1:
            return cls()
        if tasks != count:
            raise OptionError(
                f"srun started {tasks} processes on {count} nodes; need one each, which starts one per GPU. "
                "Give srun --ntasks-per-node=1."
            )
        return cls(
            count=count,
            number=int(environment["SLURM_NODEID"]),
            first=first_host(environment["SLURM_STEP_NODELIST"]),
            job=environment["SLURM_JOB_ID"],
        )

    @property
    def meeting(self) -> dict[str, Any]:
        """Return what the launcher needs to know of where its likes meet: any free port, or one that all can name."""
        if self.count == 1:
            return {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "local_addr": "localhost"}
        port = _PORTS[int(self.job) % len(_PORTS)]
        return {
            "rdzv_backend": "static",
            "rdzv_endpoint": f"{self.first}:{port}",
            "rdzv_configs": {"rank": self.number},
        }


def first_host(hosts: str) -> str:
    """Return the first name of a list as Slurm writes it, `gpu[03-05,07],big1`."""
    first = re.match(r"(?:\[[^\]]*\]|[^,\[])+", hosts)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0]) if first else hosts


def processes_here(asked: int | None, device: str) -> int:
    """Return how many processes train on this machine: as many as asked, else one per GPU, one on the CPU."""
    gpus = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
    if asked is not None and gpus and asked > gpus:
        raise OptionError(
            f"--processes {asked}: {socket.gethostname()} has {gpus} usable GPUs; need one for each process. "
            "Leave the flag out, or ask the site for more GPUs."
        )
    return asked or max(1, gpus)


def launch(work: Callable[[Any, Member], None], args: Any, *, processes: int, nodes: Nodes) -> None:
    """Run `work(args, member)` in so many processes on each of `nodes`; when one fails, end all.

    Raises
    ------
    SliceStreamError
        What the first process to fail raised, or which one was ended from outside.
    SystemExit
        A fault of ours in a process, with its traceback; or a signal other than Ctrl-C.
    """
    logging.disable(logging.CRITICAL)  # the launcher tells every end twice, with its own traceback
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=nodes.count,
            max_nodes=nodes.count,
            nproc_per_node=processes,
            run_id=nodes.job,
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            **nodes.meeting,
        )
        try:
            elastic_launch(config, _take_part)(work, args)
        except ChildFailedError as error:
            raise _cause(*error.get_first_failure()) from None
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            sys.exit(128 + error.sigval)


def _take_part(work: Callable[[Any, Member], None], args: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the launcher tells of Ctrl-C
    try:
        work(args, Member.launched())
    except SliceStreamError:
        raise
    except Exception:
        time.sleep(_NOTICED_S)  # perhaps another process broke and this one only noticed: that one is to be told of
        raise


def _cause(rank: int, failure: ProcessFailure) -> SliceStreamError | SystemExit:
    """Return what to raise for how a process ended: what it raised itself, if it came to that."""
    told: Any = failure.message
    if isinstance(told, str):
        how = f"was ended by {failure.signal_name()}" if failure.exitcode < 0 else f"exited with {failure.exitcode}"
        return TrainingError(
            f"process {rank} of the training, on {socket.gethostname()}: {how}; all are needed to the end. "
            "Often memory was short. Run again: training goes on from its last checkpoint."
        )
    kind, _, text = told["message"].partition(": ")
    error = getattr(errors, kind, None)
    if isinstance(error, type) and issubclass(error, SliceStreamError):
        return error(text)
    return SystemExit(told["extraInfo"]["py_callstack"])
