"""What Slurm says about a job, read as text. Nothing here talks to a site."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from slicestream.streamflow_plugin.jobs import decoded, said_script

# https://slurm.schedmd.com/job_state_codes.html
SITES_FAULT = frozenset(("BOOT_FAIL", "LAUNCH_FAILED", "NODE_FAIL", "PREEMPTED", "RECONFIG_FAIL"))
AGAIN = SITES_FAULT | {"CANCELLED"}
ENDED = frozenset(("CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "REVOKED", "TIMEOUT", *SITES_FAULT))
ADVICE = {
    "CANCELLED": "somebody on the site cancelled it; run again",
    "TIMEOUT": "raise `time` of the service in streamflow.yml and run again; training goes on from its checkpoint",
    "DEADLINE": "raise the deadline and run again",
    "OUT_OF_MEMORY": "raise `mem` of the service in streamflow.yml and run again",
}
AWAY = re.compile(
    r"Unable to contact slurm controller|Socket timed out|Connection refused|Zero Bytes were transmitted", re.I
)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobState:
    """A job's record. `code` and `signal` are those of its script."""

    id: str
    state: str
    reason: str
    code: int
    signal: int
    stdout: str
    stderr: str
    node: str

    @property
    def returncode(self) -> int:
        """The exit code for the workflow: 0 only for a job that Slurm itself calls completed."""
        if self.state == "COMPLETED" and not self.signal:
            return self.code
        return self.code or (128 + self.signal if self.signal else 1)

    @property
    def by_itself(self) -> bool:
        """Whether the job's own program ended it, with an exit code."""
        return self.state in ("COMPLETED", "FAILED") and not self.signal

    def line(self) -> str:
        """Return the one line about a failed job."""
        end = f"exit code {self.code}" + (f", signal {self.signal}" if self.signal else "")
        reason = "" if self.reason in ("None", "") else f" (reason {self.reason})"
        place = f" on {self.node}" if self.node not in ("", "(null)") else ""
        text = f"Slurm job {self.id}{place}: {self.state}{reason}, {end}"
        return f"{text}; {ADVICE[self.state]}" if self.state in ADVICE else text


def parse_job(text: str) -> JobState | None:
    """Return the record in the output of `scontrol show -o job <id>`; None if there is none."""
    fields = dict(re.findall(r"(?:^|\s)([A-Z][\w:/]*)=(.*?)(?=\s+[A-Z][\w:/]*=|\s*$)", text.strip(), re.S))
    code = re.fullmatch(r"(\d+):(\d+)", fields.get("ExitCode", ""))
    if not ("JobId" in fields and "JobState" in fields and code):
        return None
    return JobState(
        id=fields["JobId"],
        state=fields["JobState"].split()[0],
        reason=fields.get("Reason", ""),
        code=int(code[1]),
        signal=int(code[2]),
        stdout=fields.get("StdOut", ""),
        stderr=fields.get("StdErr", ""),
        node=fields.get("NodeList", ""),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Queued:
    """A job's line in the queue. `start`: as Slurm expects it; `ahead`: pending jobs before it, None if it runs."""

    state: str
    start: str
    reason: str
    ahead: int | None


def queue_script(jobs: Collection[str], logs: Mapping[str, tuple[str, int]]) -> str:
    """Return the command that asks for jobs in the queue, with the exit code of squeue.

    `logs`: of each job the file that it prints to and the bytes that were read of it; unknown at first.
    """
    parts = [f"squeue -h -t all -j {','.join(jobs)} -o '%i %T %S %r'", "code=$?"]
    parts += ["printf '\\npending '", "squeue -h -t PD --sort=-p,i -o %i 2>/dev/null | tr '\\n' ' '"]
    for job in jobs:
        if job in logs:
            path, read = logs[job]
            parts += [f"printf '\\nsaid {job} '", said_script(shlex.quote(path), read)]
        else:
            parts += [f"printf '\\nrecord {job} '", f"scontrol show -o job {job} 2>/dev/null"]
    return "; ".join([*parts, "echo", "exit $code"])


def parse_news(text: str) -> tuple[dict[str, Queued], dict[str, str], dict[str, bytes]]:
    """Return what `queue_script` printed: by job its line in the queue, the file that it prints to, what that holds."""
    pending = found[1].split() if (found := re.search(r"^pending (.*)$", text, re.M)) else []
    queue = {
        job: Queued(
            state=state,
            start="" if start == "N/A" else start,
            reason="" if reason == "None" else reason,
            ahead=pending.index(job) if job in pending else None,
        )
        for job, state, start, reason in re.findall(r"^(\d+)\S* ([A-Z_]+) (\S+) (.*)$", text, re.M)
    }
    records = {job: parse_job(record) for job, record in re.findall(r"^record (\d+) (.*)$", text, re.M)}
    paths = {job: record.stdout for job, record in records.items() if record and record.stdout}
    said = {job: decoded(news) for job, news in re.findall(r"^said (\d+) (\S+)$", text, re.M)}
    return queue, paths, said


def parse_submission(text: str) -> str | None:
    """Return the job id in the output of `sbatch --parsable`, warnings or not."""
    found = re.search(r"^(\d+)(?:;\S+)?\s*$", text, re.M)
    return found[1] if found else None


def refusal(text: str) -> str:
    """Return sbatch's message in one line."""
    return "; ".join(re.sub(r"^sbatch: (error: )?", "", line.strip()) for line in text.splitlines() if line.strip())
