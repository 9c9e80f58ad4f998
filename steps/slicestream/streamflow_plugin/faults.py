"""What goes wrong at a site, as errors that StreamFlow and our own command line both know."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from streamflow.core.exception import WorkflowExecutionException

from slicestream import errors

repeating: ContextVar[bool] = ContextVar("repeating", default=False)  # work is being done again in another pod


class SiteError(errors.SiteError, WorkflowExecutionException):
    """Something at a site went wrong: one line, not to be tried again."""


class SiteUnreachableError(SiteError):
    """The site did not answer: worth another try."""


class PodGoneError(SiteError):
    """The pod of a location is no more, and its files with it. `recover` moves the location to another pod."""

    def __init__(self, message: str, recover: Callable[[], Awaitable[None]]) -> None:
        super().__init__(message)
        self.recover = recover
