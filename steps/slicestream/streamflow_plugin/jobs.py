"""Jobs that outlive the connection that started them: started in a session of their own, watched by polling.

rc3 ties a job to one ssh channel or one websocket (deployment/connector/ssh.py:809, kubernetes.py:566). When that
is lost, so is the job's end; and when the laptop stops, the remote process goes on. Here the job runs in a process
group of its own, with its output and exit code in files of the run's work folder, which any connection can read.
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
import shlex
from collections.abc import MutableSequence
from dataclasses import dataclass

from streamflow.core.deployment import ExecutionLocation
from streamflow.deployment.connector.base import BaseConnector
from streamflow.log_handler import logger

from slicestream.streamflow_plugin.faults import SiteError, SiteUnreachableError
from slicestream.streamflow_plugin.session import current, patiently

FIRST_POLL_S, LONGEST_POLL_S = 0.2, 2.0
TRIES = 3  # of a job whose process is gone without an exit code: its container or machine was restarted
SAID = 1 << 16  # bytes of a job's output that one poll brings
TAIL = 20  # lines of a failed job's output that are shown
JOBS = ".jobs"  # in the run's work folder; <job>/pid is the number of a process group


@dataclass(kw_only=True, slots=True)
class _Job:
    location: ExecutionLocation
    folder: str
    read: int = 0  # bytes of its output

    def path(self, name: str) -> str:
        return shlex.quote(f"{self.folder}/{name}")


def start_script(folder: str, shell: str) -> str:
    """Return the shell command that starts `<folder>/run.sh` detached, at its first call only."""
    d = shlex.quote(folder)
    inner = f"{shell} {d}/run.sh >{d}/log 2>&1; echo $? >{d}/rc.part; mv {d}/rc.part {d}/rc"
    return (
        f"if mkdir {d}/started 2>/dev/null; then "
        f"setsid sh -c {shlex.quote(inner)} </dev/null >/dev/null 2>&1 & echo $! >{d}/pid; fi; true"
    )


def shell_of(script: str) -> str:
    """Return what a script's first line asks to be run by."""
    return script.splitlines()[0][2:].strip() if script.startswith("#!") else "sh"


def poll_script(folder: str, read: int = 0) -> str:
    """Return the command that prints a job's exit code, or `alive`, or `dead`, then what it said after `read` bytes.

    A dead process has no command line.
    """
    d = shlex.quote(folder)
    return (
        f"if [ -f {d}/rc ]; then cat {d}/rc; "
        f"elif grep -qs {d} /proc/$(cat {d}/pid 2>/dev/null)/cmdline; then echo alive; "
        f"elif [ -f {d}/rc ]; then cat {d}/rc; else echo dead; fi; {said_script(f'{d}/log', read)}"
    )


def said_script(path: str, read: int) -> str:
    """Return the command that prints what a log holds after `read` bytes, as base64, which no shell changes."""
    return f"tail -c +{read + 1} {path} 2>/dev/null | head -c {SAID} | base64 | tr -d '\\n'"


def decoded(text: str) -> bytes:
    """Return what `said_script` has printed; nothing where the site could not."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def kill_script(folder: str) -> str:
    """Return the command that ends a job's whole process group, unless its number is somebody else's by now."""
    d = shlex.quote(folder)
    return (
        f"p=$(cat {d}/pid 2>/dev/null) && grep -qs {d} /proc/$p/cmdline && "
        f"kill -TERM -$p && sleep 1 && kill -KILL -$p 2>/dev/null; true"
    )


def once(command: MutableSequence[str]) -> list[str]:
    """Make an `sbatch` repeatable: a second try, after a lost connection, prints the first one's answer."""
    text = " ".join(command)
    if not (found := re.search(rf"(/[^\"'\s]*?/{current().id})[/\"'\s]", text)):
        return [*command]
    folder = shlex.quote(f"{found[1]}/{JOBS}")
    script = (
        f"mkdir -p {folder}; d={folder}/{secrets.token_hex(6)}; if mkdir $d 2>/dev/null; then "
        f"{{ {text}; }} >$d/log 2>&1; echo $? >$d/rc.part; mv $d/rc.part $d/rc; fi; "
        "i=0; while [ ! -f $d/rc ] && [ $i -lt 60 ]; do sleep 1; i=$((i+1)); done; cat $d/log; exit $(cat $d/rc)"
    )
    return ["sh", "-c", shlex.quote(script)]


class DetachedJobs(BaseConnector):
    """The part of a connector that runs jobs."""

    _jobs: dict[str, _Job]

    async def run_job(
        self,
        location: ExecutionLocation,
        command: str,
        *,
        job_name: str,
        workdir: str | None,
        stdout: int | str,
        timeout: int | None,
    ) -> tuple[str, int]:
        """Run a job to its end and return its output and exit code; for a failed one, its last lines.

        Raises
        ------
        SiteError
            The site stayed out of reach, the job took too long, or its process was killed from outside each time.
        """
        for attempt in range(1, TRIES + 1):
            current().check_open()
            folder = f"{current().folder(workdir or '')}/{JOBS}/{secrets.token_hex(6)}"
            job = _Job(location=location, folder=folder)
            self.jobs[job_name] = job
            try:
                await self._start(job, command)
                current().teller.tell("job", job_name, state="runs")
                code = await asyncio.wait_for(self._ended(job, job_name), timeout)
            except TimeoutError:
                await self._shell(job, kill_script(folder))
                raise SiteError(
                    f"job {job_name} on {location}: not ended after its time limit of {timeout} s"
                ) from None
            if code is not None:
                self.jobs.pop(job_name, None)
                return await self._output(job, code, workdir=workdir, stdout=stdout), code
            logger.warning(
                f"job {job_name} on {location}: killed from outside, without an exit code ({attempt} of {TRIES})"
            )
        raise SiteError(
            f"job {job_name} on {location}: killed from outside {TRIES} times; look at the site's memory limits"
        )

    @property
    def jobs(self) -> dict[str, _Job]:
        """The jobs that run now, by name."""
        if not hasattr(self, "_jobs"):
            self._jobs = {}
        return self._jobs

    async def kill_jobs(self) -> None:
        """End every job that still runs, as far as the site answers."""
        for name, job in list(self.jobs.items()):
            try:
                await self._shell(job, kill_script(job.folder))
            except Exception as error:  # the removal of leftovers tries again
                logger.warning(f"job {name} on {job.location}: cannot be ended now: {error}")
        self.jobs.clear()

    async def _start(self, job: _Job, command: str) -> None:
        await self._shell(job, f"mkdir -p {shlex.quote(job.folder)}")

        async def write() -> None:
            async with await self.get_stream_writer(["cat", ">", job.path("run.sh")], job.location) as writer:
                await writer.write(command.encode())
            arrived = await self._shell(job, f"wc -c < {job.path('run.sh')}")
            if arrived.strip() != str(
                len(command.encode())
            ):  # containerd may close a short stdin before it has read it
                raise SiteUnreachableError(f"{arrived.strip()} of {len(command.encode())} bytes of the script arrived")

        await patiently(write, what=f"starting a job on {job.location}")
        await self._shell(job, start_script(job.folder, shell_of(command)))

    async def _ended(self, job: _Job, name: str) -> int | None:
        pause = FIRST_POLL_S
        while True:
            state, _, said = (await self._shell(job, poll_script(job.folder, job.read))).strip().partition("\n")
            news = decoded(said.strip())
            job.read += len(news)
            current().teller.log(name, news)
            if state != "alive" and len(news) < SAID:
                return int(state) if state.isdigit() else None
            await asyncio.sleep(pause)
            pause = min(LONGEST_POLL_S, pause * 1.5)

    async def _output(self, job: _Job, code: int, *, workdir: str | None, stdout: int | str) -> str:
        if code == 0:
            return await self._shell(job, f"tail -c 20000 {job.path('log')}")
        files = [job.path("log")]
        if isinstance(stdout, str):
            files.append(shlex.quote(f"{workdir}/{stdout}" if not stdout.startswith("/") else stdout))
        said = await self._shell(job, f"cat {' '.join(files)} 2>/dev/null | tail -n {TAIL}")
        return f"exit code {code} on {job.location}; its last lines:\n{said}"

    async def _shell(self, job: _Job, script: str) -> str:
        answer = await self.run(job.location, ["sh", "-c", shlex.quote(script)], capture_output=True)
        return answer[0] if answer else ""
