"""What StreamFlow's own classes do with the repairs in place, without a site."""

from __future__ import annotations

import asyncio
import logging
import sys

import pytest
from streamflow.core.exception import WorkflowExecutionException

from slicestream.streamflow_plugin.repairs import OneLine, after_the_end


async def _interrupted(error: Exception, left: list[asyncio.Task[None]]) -> None:
    """Leave a task in `left` that fails when the loop ends it, as a job does whose site was closed before it."""

    async def job() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise error from None

    asyncio.get_running_loop().set_exception_handler(after_the_end)
    left.append(asyncio.create_task(job()))
    await asyncio.sleep(0)


def test_a_job_that_ends_after_its_site_was_closed_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(_interrupted(WorkflowExecutionException("Could not retrieve connector for job /work/0"), []))
    assert caplog.records == []


def test_a_fault_of_our_own_is_told_after_the_end_too(caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(_interrupted(ZeroDivisionError("ours"), []))
    assert [type(record.exc_info[1]) for record in caplog.records if record.exc_info] == [ZeroDivisionError]


def _record(error: BaseException) -> logging.LogRecord:
    """Return what StreamFlow logs of an error, with its traceback."""
    try:
        raise error
    except BaseException:
        return logging.LogRecord("streamflow", logging.ERROR, __file__, 1, error, None, sys.exc_info())


def test_a_step_that_was_interrupted_is_no_error() -> None:
    assert not OneLine().filter(_record(asyncio.CancelledError()))


def test_a_foreseen_error_is_one_line_once_and_another_keeps_its_traceback() -> None:
    lines = OneLine()
    foreseen, again, ours = (
        _record(error)
        for error in (
            WorkflowExecutionException("no space"),
            WorkflowExecutionException("no space"),
            ZeroDivisionError("ours"),
        )
    )
    assert lines.filter(foreseen)
    assert (foreseen.getMessage(), foreseen.exc_info) == ("no space", None)
    assert not lines.filter(again)
    assert lines.filter(ours)
    assert ours.exc_info is not None
