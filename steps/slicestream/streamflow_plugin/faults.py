"""What goes wrong at a site, as errors that StreamFlow and our own command line both know."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from streamflow.core.exception import WorkflowExecutionException

from slicestream import errors

repeating: ContextVar[bool] = ContextVar("repeating", default=False)  # work is being done again in another pod


class SiteError(errors.SiteError, WorkflowExecutionException):
    """Something at a site went wrong: one line, not to be tried again."""


class SiteFullError(SiteError):
    """The disk or the quota of the site is full: somebody has to make room."""


class SiteUnreachableError(SiteError):
    """The site did not answer: worth another try."""


class PodGoneError(SiteError):
    """The pod of a location is no more, and its files with it. `recover` moves the location to another pod."""

    def __init__(self, message: str, recover: Callable[[], Awaitable[None]]) -> None:
        super().__init__(message)
        self.recover = recover


def command_failed(where: str, said: str, otherwise: str) -> SiteError:
    """Return the error for a command that failed at a site: its last lines, or what else is known of its end."""
    text = "; ".join(line.strip() for line in said.strip().splitlines()[-3:]) or otherwise
    if re.search(r"No space left on device|[Qq]uota exceeded", text):
        return SiteFullError(
            f"{where}: {text}. Make room there (`slicestream clean` removes what earlier runs left), or name another "
            "`workdir` in the StreamFlow file; then run again"
        )
    return SiteError(f"{where}: {text}")
