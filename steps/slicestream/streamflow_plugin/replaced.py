"""A pod that is replaced while a run uses it: what was done in it is done again in another worker, under the same name.

rc3 goes on using the pod that is gone for 10 s (deployment/connector/kubernetes.py:450, `locationsCacheTTL`), its
failure manager gets an error of aiohttp and gives up (scheduling/scheduler.py:159), and with a shorter cache its
recovery never ends. Here the name that StreamFlow knows a worker by stays, and stands for another pod from then on. All
that changed the lost pod's work folder is kept in order (folders made, files sent, jobs run) and repeated there; inputs
and programs are the same, so the outputs are too.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from streamflow.core.deployment import ExecutionLocation
from streamflow.log_handler import logger

from slicestream.streamflow_plugin.faults import SiteError, repeating

CHANGING = frozenset(("mkdir", "ln", "cp", "/bin/cp", "rm", "chmod", "mv"))
WAIT_S = 300.0  # for another worker to be ready
Redo = Callable[[ExecutionLocation], Awaitable[Any]]


@dataclass
class _Worker:
    """A location of StreamFlow's: the `pod:container` that it stands for now, and how to do its work again."""

    now: str
    work: list[Redo] = field(default_factory=list)
    repeatable: bool = True
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Workers:
    """The locations of one deployment. `ready` gives the names of the pods that can take work now."""

    def __init__(self, ready: Callable[[str], Awaitable[Iterable[str]]]) -> None:
        self._ready = ready
        self._workers: dict[str, _Worker] = {}

    def _worker(self, name: str) -> _Worker:
        return self._workers.setdefault(name, _Worker(now=name))

    def now(self, name: str) -> str:
        """Return the `pod:container` that a location stands for."""
        return self._workers[name].now if name in self._workers else name

    def known_as(self, actual: str) -> str:
        """Return the location's name that a `pod:container` goes by."""
        return next((name for name, worker in self._workers.items() if worker.now == actual), actual)

    def note(self, location: ExecutionLocation, redo: Redo) -> None:
        """Keep what changed a worker, when it has been done."""
        if not repeating.get():
            self._worker(location.name).work.append(redo)

    def forbid(self, location: ExecutionLocation) -> None:
        """Say that something was done in a worker that cannot be repeated."""
        self._worker(location.name).repeatable = False

    async def move(self, location: ExecutionLocation, gone: str) -> None:
        """Do a location's work again in another pod, if nobody has done so yet.

        Raises
        ------
        SiteError
            No other worker became ready, or the work cannot be repeated.
        """
        worker = self._worker(location.name)
        async with worker.lock:
            if worker.now != gone:
                return
            if not worker.repeatable:
                raise SiteError(f"{location}: its pod is gone, and what was written into it cannot be written again")
            new = await self._another(location, gone)
            logger.warning(f"{location}: its pod is gone; {len(worker.work)} actions are done again in {new}")
            there = ExecutionLocation(
                name=new,
                deployment=location.deployment,
                environment=location.environment,
                hostname=location.hostname,
                service=location.service,
            )
            token = repeating.set(True)
            try:
                for redo in worker.work:
                    await redo(there)
            finally:
                repeating.reset(token)
            worker.now = new

    async def _another(self, location: ExecutionLocation, gone: str) -> str:
        container = gone.partition(":")[2]
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    names = [name for name in await self._ready(container) if name != gone]
                    free = [name for name in names if name not in {one.now for one in self._workers.values()}]
                    if free or names:
                        return (free or names)[0]
                    await asyncio.sleep(1)
        except TimeoutError:
            raise SiteError(f"{location}: its pod is gone, and no other was ready within {WAIT_S:.0f} s") from None


def changes(command: Iterable[str]) -> bool:
    """Whether a command of StreamFlow's changes the worker's files."""
    words = shlex.split(" ".join(command))
    return bool(words) and words[0] in CHANGING
