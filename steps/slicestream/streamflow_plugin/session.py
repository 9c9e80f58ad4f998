"""The run that this process drives: its id, its places, whether it is ending, what it did."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from streamflow.log_handler import logger

from slicestream.progress.telling import Teller
from slicestream.sites.runs import Place, Run
from slicestream.streamflow_plugin.faults import PodGoneError, SiteError, SiteFullError, SiteUnreachableError, repeating
from slicestream.streamflow_plugin.record import SitesRecord

PATIENCE_S = 90.0  # how long a site may be out of reach before the run fails
PAUSE_S = 2.0

MOVES = 3  # how often one action may find its pod gone

T = TypeVar("T")


class Session:
    """State of this process's run; there is one, because StreamFlow runs one workflow file a process."""

    def __init__(self) -> None:
        self.id = os.environ.get("SLICESTREAM_RUN") or secrets.token_hex(6)
        self.run: Run | None = None
        self.ending = False
        self.stopped = False  # by a signal
        self.teller = Teller(Path(told) if (told := os.environ.get("SLICESTREAM_PROGRESS")) else None)
        self.record = SitesRecord(self.id, self.teller)
        self.reached: set[str] = set()  # ssh hosts and Kubernetes contexts where something may have been made

    def check_open(self) -> None:
        """Refuse new work on a site once the run is ending, so that nothing is made behind the removal's back."""
        if self.ending:
            raise SiteError("the run is ending")

    def register(self, place: Place) -> None:
        """Write a place into the register of runs, before anything is made there."""
        assert self.run is not None, "the run has not begun"
        self.run.add(place)

    def folder(self, path: str) -> str:
        """Return the run's work folder on a site, of which `path` is a part."""
        found = re.match(rf"(.*?/{self.id})(/|$)", path)
        if not found:
            raise SiteError(f"{path}: not in a work folder of run {self.id}")
        return found[1]


_session: Session | None = None


def current() -> Session:
    """Return this process's session, made when first asked for."""
    global _session  # noqa: PLW0603
    if _session is None:
        _session = Session()
    return _session


async def patiently(
    action: Callable[[], Awaitable[T]], *, what: str, patience_s: float = PATIENCE_S, again: int = 0
) -> T:
    """Try `action` until it succeeds, while the site is out of reach and for `patience_s` at most.

    After an error of another kind it is tried `again` so many times.

    Raises
    ------
    SiteError
        The site stayed out of reach, or another error of the site came.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + patience_s
    moves = failures = 0
    away = False
    while True:
        try:
            answer = await action()
            if away:
                current().teller.tell("site", what, state="back")
            return answer
        except PodGoneError as error:
            if repeating.get() or moves == MOVES:
                raise
            moves += 1
            await error.recover()
            continue
        except SiteUnreachableError as error:
            if current().ending:
                raise
            if loop.time() + PAUSE_S > give_up:
                raise SiteError(f"{what}: given up after {patience_s:.0f} s: {error}") from error
            logger.warning(f"{what}: {error}; trying again")
            current().teller.tell("site", what, state="out of reach", why=str(error))
            away = True
        except SiteError as error:
            if current().ending or failures == again or isinstance(error, SiteFullError):
                raise
            failures += 1
            logger.warning(f"{what}: {error}; trying again")
        await asyncio.sleep(PAUSE_S)
