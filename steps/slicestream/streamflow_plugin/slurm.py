"""The slurm connector: a job counts as done only when Slurm says COMPLETED, and carries the run's id as its name.

rc3 (deployment/connector/queue_manager.py) reads only the number before ':' of ExitCode (:722), so that a job
cancelled, out of time or out of memory (0:15, 0:9, 0:125) is a success; it takes a failed squeue for a job that has
ended (:742); it says nothing of Slurm's state and reason nor of the job's log; on Ctrl-C the job keeps running.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Collection, Mapping, MutableMapping, MutableSequence
from typing import Any

from streamflow.core.deployment import Connector, ExecutionLocation
from streamflow.core.exception import WorkflowExecutionException
from streamflow.deployment.connector.queue_manager import QueueManagerConnector, SlurmConnector, SlurmService
from streamflow.deployment.wrapper import get_inner_location, get_inner_locations
from streamflow.log_handler import logger

from slicestream.streamflow_plugin.faults import SiteError, SiteUnreachableError
from slicestream.streamflow_plugin.jobs import SAID, decoded, said_script
from slicestream.streamflow_plugin.session import current, patiently
from slicestream.streamflow_plugin.slurm_jobs import (
    AGAIN,
    AWAY,
    ENDED,
    JobState,
    Queued,
    parse_job,
    parse_news,
    parse_submission,
    queue_script,
    refusal,
)

CONTROLLER_PATIENCE_S = 300.0  # a restart of slurmctld takes its time
TRIES = 3
TAIL = 20


class SafeSlurmConnector(SlurmConnector):
    """`slurm`, with job states read whole."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.services.setdefault(None, SlurmService())  # a binding without a service
        for service in self.services.values():
            service.jobName = f"slicestream-{current().id}"
        self._ids: dict[str, str] = {}
        self._logs: dict[str, tuple[str, int]] = {}  # Slurm's id -> file that the job prints to, bytes read of it

    async def run(  # noqa: PLR0917 - StreamFlow's signature
        self,
        location: ExecutionLocation,
        command: MutableSequence[str],
        environment: MutableMapping[str, str] | None = None,
        workdir: str | None = None,
        stdin: int | str | None = None,
        stdout: int | str = asyncio.subprocess.STDOUT,
        stderr: int | str = asyncio.subprocess.STDOUT,
        capture_output: bool = False,
        timeout: int | None = None,
        job_name: str | None = None,
    ) -> tuple[str, int] | None:
        """Run a command on the login node, or a job; again if the site failed it or somebody cancelled it."""
        if job_name is not None:
            environment = {**(environment or {}), "SLICESTREAM_RUN": current().id}
        for attempt in range(1, TRIES + 1):
            answer: tuple[str, int] | None = await super().run(
                location, command, environment, workdir, stdin, stdout, stderr, capture_output, timeout, job_name
            )
            if job_name is None or answer is None or answer[1] == 0:
                return answer
            job = await self._job(self._ids[job_name], location)
            line = f"{job.line()}; its last lines:\n{await self._tail(job, location, workdir, stdout)}"
            if job.by_itself:
                return line, job.returncode
            if job.state not in AGAIN or attempt == TRIES:
                raise SiteError(f"job {job_name}: {line}")
            logger.warning(f"job {job_name}: {line}\nsubmitted again ({attempt + 1} of {TRIES})")
        raise AssertionError("unreachable")

    async def _run_batch_command(self, *args: Any, **kwargs: Any) -> str:
        current().check_open()
        job_name: str = kwargs["job_name"]
        try:
            said = await super()._run_batch_command(*args, **kwargs)
        except SiteError:
            raise
        except WorkflowExecutionException as error:
            said = str(error).partition("Slurm: ")[2] or str(error)
            raise SiteError(f"job {job_name}: Slurm refused it: {refusal(said)}") from None
        if not (job_id := parse_submission(said)):
            raise SiteError(f"job {job_name}: sbatch gave no job id: {refusal(said)}")
        self._ids[job_name] = current().record.slurm_jobs[job_name] = job_id
        return job_id

    async def _get_running_jobs(self, location: ExecutionLocation) -> Collection[str]:
        if (known := self._jobs_cache.get("queue")) is not None:
            return known
        ids = list(self._scheduled_jobs)
        queue, paths, news = parse_news(await self._ask(location, queue_script(ids, self._logs)))
        self._logs |= {job: (path, 0) for job, path in paths.items()}
        self._tell(queue, news)
        running = [job for job in ids if job in queue and queue[job].state not in ENDED]
        self._jobs_cache["queue"] = running
        return running

    def _tell(self, queue: Mapping[str, Queued], news: Mapping[str, bytes]) -> None:
        """Tell how the jobs stand in the queue and what they have printed."""
        names = {job: name for name, job in self._ids.items()}
        for job, one in queue.items():
            facts = {"state": "queued", "ahead": one.ahead, "expected": one.start, "reason": one.reason}
            told = facts if one.state == "PENDING" else {"state": "runs"}
            if job in names and one.state not in ENDED:
                current().teller.tell("job", names[job], slurm_job=job, **told)
        for job, text in news.items():
            self._take(job, text)

    def _take(self, job_id: str, said: bytes) -> None:
        path, read = self._logs[job_id]
        self._logs[job_id] = path, read + len(said)
        current().teller.log(next((name for name, job in self._ids.items() if job == job_id), job_id), said)

    async def _take_rest(self, job: JobState, location: ExecutionLocation) -> None:
        """Take what a job printed after the last look at the queue."""
        path, read = self._logs.setdefault(job.id, (job.stdout, 0))
        said = decoded((await self._login(location, said_script(shlex.quote(path), read)))[0].strip())
        self._take(job.id, said)
        if len(said) == SAID:
            await self._take_rest(job, location)

    async def _get_returncode(self, job_id: str, location: ExecutionLocation) -> int:
        job = await self._job(job_id, location)
        await self._take_rest(job, location)
        return job.returncode

    async def _get_output(self, job_id: str, location: ExecutionLocation) -> str:
        job = await self._job(job_id, location)
        if job.returncode != 0:
            return ""
        answer = await self._login(location, f"tail -c 20000 {shlex.quote(job.stdout)}")
        return answer[0].strip() if answer[1] == 0 else ""

    async def _remove_jobs(self, location: ExecutionLocation, jobs: MutableSequence[str]) -> None:
        # undeploy gives the inner location (queue_manager.py:653), where rc3's run then looks for a further one inside
        await self.connector.run(location, ["scancel", *jobs], capture_output=True)

    async def _job(self, job_id: str, location: ExecutionLocation) -> JobState:
        said = await self._ask(location, f"scontrol show -o job {job_id}")
        if not (job := parse_job(said)):
            raise SiteError(f"Slurm job {job_id}: no record of how it ended ({refusal(said)}); it counts as failed")
        if job.state not in ENDED:
            raise SiteError(f"Slurm job {job_id}: left the queue in state {job.state}; it counts as failed")
        return job

    async def _tail(self, job: JobState, location: ExecutionLocation, workdir: str | None, stdout: int | str) -> str:
        files = dict.fromkeys(file for file in (job.stdout, job.stderr) if file and file != "/dev/null")
        script = f"cat {' '.join(map(shlex.quote, files)) or '/dev/null'} 2>/dev/null | tail -n {TAIL}"
        return (await self._login(location, script))[0]

    async def _ask(self, location: ExecutionLocation, command: str) -> str:
        """Return what Slurm says, good or bad, once it says anything."""

        async def ask() -> str:
            said, code = await self._login(location, command)
            if code != 0 and AWAY.search(said):
                raise SiteUnreachableError(refusal(said))
            return said

        return await patiently(ask, what=f"asking Slurm on {location}", patience_s=CONTROLLER_PATIENCE_S)

    async def _login(self, location: ExecutionLocation, script: str) -> tuple[str, int]:
        answer = await QueueManagerConnector.run(self, location, ["sh", "-c", shlex.quote(script)], capture_output=True)
        return answer or ("", 1)

    async def copy_remote_to_remote(  # noqa: PLR0917 - StreamFlow's signature
        self,
        src: str,
        dst: str,
        locations: MutableSequence[ExecutionLocation],
        source_location: ExecutionLocation,
        source_connector: Connector | None = None,
        read_only: bool = False,
    ) -> None:
        """Leave the copy to the ssh connector, whose errors are seen; rc3's own `ln` and `cp` are not looked at."""
        if source_connector is None or source_connector is self:
            source_connector, source_location = self.connector, get_inner_location(source_location)
        await self.connector.copy_remote_to_remote(
            src, dst, get_inner_locations(locations), source_location, source_connector, read_only
        )
