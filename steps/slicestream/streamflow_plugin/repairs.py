"""Repairs for which StreamFlow has no interface: methods of its classes replaced in place."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from streamflow.core.exception import WorkflowException
from streamflow.core.utils import get_job_step_name
from streamflow.core.workflow import Job, Status
from streamflow.cwl import utils
from streamflow.cwl.command import CWLCommand
from streamflow.cwl.step import CWLTransferStep
from streamflow.deployment import aiotarstream
from streamflow.deployment.utils import get_path_processor
from streamflow.log_handler import logger

from slicestream.errors import SliceStreamError
from slicestream.streamflow_plugin.faults import SiteError
from slicestream.streamflow_plugin.record import JobRecord
from slicestream.streamflow_plugin.session import current

_update_listing = CWLTransferStep._update_listing
_execute = CWLCommand.execute
_write = aiotarstream.write
_FORESEEN = (WorkflowException, SliceStreamError)


def apply() -> None:
    """Put the repairs in place; a second call changes nothing."""
    CWLTransferStep._update_listing = _update_listing_once
    CWLCommand.execute = _execute_recorded
    aiotarstream.write = _write_or_stop


async def _update_listing_once(
    self: Any, job: Job, token_value: Any, dst_path: Any = None, src_location: Any = None
) -> Any:
    """Keep a Directory from holding its sub-directories twice (cwl/step.py:532).

    A Directory goes over whole; then rc3 looks up each child on the location that the Directory came from, by the
    child's path on the location where it was made. When a second pod gets the Directory from the first these differ, so
    every child is sent again and a sub-directory lands inside itself. Children below the Directory's own path need no
    second transfer.
    """
    root = token_value.get("path", "").rstrip("/") + "/"
    if src_location is None or not all(child.get("path", "").startswith(root) for child in token_value["listing"]):
        return await _update_listing(self, job, token_value, dst_path, src_location)
    processor = get_path_processor(self.workflow.context.scheduler.get_locations(job.name)[0])
    return [
        utils.remap_token_value(
            path_processor=processor, old_dir=token_value["path"], new_dir=str(dst_path), value=child
        )
        for child in sorted(token_value["listing"], key=lambda child: child["basename"])
    ]


async def _write_or_stop(src: Any, dst: Any, bufsize: int) -> None:
    """Stop where a stream ends early; rc3 reads the end for ever (deployment/aiotarstream.py:57)."""

    class Reader(aiotarstream.StreamWrapper):
        async def read(self, size: int | None = None) -> bytes:
            data = (
                await self.stream.read(size)
                if isinstance(self.stream, aiotarstream.StreamWrapper)
                else self.stream.read(size)
            )
            if not data:
                raise SiteError("the tar stream ended early")
            return data

        async def write(self, data: Any) -> None:
            raise NotImplementedError

        async def close(self) -> None:
            return

    await _write(Reader(src), dst, bufsize)


async def _execute_recorded(self: Any, job: Job) -> Any:
    """Note where and how long each job ran."""
    location = self.step.workflow.context.scheduler.get_locations(job.name)[0]
    record = JobRecord(
        step=get_job_step_name(job.name),
        job=job.name,
        deployment=location.deployment,
        location=location.name,
        start=time.time(),
    )
    current().record.jobs.append(record)
    place = "laptop" if location.local else location.deployment
    current().teller.tell("job", job.name, state="runs" if location.local else "starts", place=place)
    record.status = "failed"
    try:
        output = await _execute(self, job)
        record.status = "completed" if output.status == Status.COMPLETED else "failed"
        return output
    finally:
        record.end = time.time()
        record.seconds = round(record.end - record.start, 3)
        current().teller.tell("job", job.name, state=record.status)


class OneLine(logging.Filter):
    """One clear line for a foreseen error, once: rc3 prints the traceback at each of up to five levels."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten a record of a foreseen error; drop it if it has been shown."""
        if logger.isEnabledFor(logging.DEBUG):
            return True
        if record.levelno < logging.ERROR:
            return "Failure manager is not enabled" not in str(record.msg)
        error = record.exc_info[1] if record.exc_info else record.msg
        if isinstance(error, asyncio.CancelledError):  # Ctrl-C: the end of the run says so, once
            return False
        if isinstance(error, _FORESEEN):
            record.msg, record.args, record.exc_info, record.exc_text = str(error), None, None, None
        text = str(record.msg)
        if text in self.seen or any(line in text for line in self.seen if len(line) > 40):
            return False
        self.seen.add(text)
        return True


def after_the_end(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Leave out what a job says that ends after its site was closed: the run has told why it ends."""
    if not isinstance(context.get("exception"), _FORESEEN) or logger.isEnabledFor(logging.DEBUG):
        loop.default_exception_handler(context)
