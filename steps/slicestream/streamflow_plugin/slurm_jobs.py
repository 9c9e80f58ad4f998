"""What Slurm says about a job, read as text. Nothing here talks to a site."""

from __future__ import annotations

import re
from dataclasses import dataclass

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


def parse_queue(text: str) -> dict[str, str]:
    """Return job id -> state from lines of `squeue -h -o '%i %T'`."""
    return dict(re.findall(r"^(\d+)\S*\s+([A-Z_]+)", text, re.M))


def parse_submission(text: str) -> str | None:
    """Return the job id in the output of `sbatch --parsable`, warnings or not."""
    found = re.search(r"^(\d+)(?:;\S+)?\s*$", text, re.M)
    return found[1] if found else None


def refusal(text: str) -> str:
    """Return sbatch's message in one line."""
    return "; ".join(re.sub(r"^sbatch: (error: )?", "", line.strip()) for line in text.splitlines() if line.strip())
