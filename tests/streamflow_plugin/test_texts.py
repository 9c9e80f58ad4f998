"""What Slurm, Kubernetes and manifests say, read without a site."""

from __future__ import annotations

import subprocess
import tarfile
import time
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slicestream.streamflow_plugin.digests import local_tree
from slicestream.streamflow_plugin.faults import SiteError
from slicestream.streamflow_plugin.jobs import decoded, kill_script, poll_script, shell_of, start_script
from slicestream.streamflow_plugin.manifests import of_run, workers
from slicestream.streamflow_plugin.pods import parse_status, ready, stuck
from slicestream.streamflow_plugin.slurm_jobs import Queued, parse_job, parse_news, parse_submission, refusal
from slicestream.streamflow_plugin.transfers import packed

# As Slurm 24.11 prints it, on one line.
CANCELLED = (
    "JobId=12 JobName=slicestream-0123456789ab UserId=alice(2000) GroupId=alice(2000) MCS_label=N/A Priority=1 Nice=0 "
    "Account=(null) QOS=(null) JobState=CANCELLED Reason=None Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 "
    "Reboot=0 ExitCode=0:15 DerivedExitCode=0:0 RunTime=00:00:04 TimeLimit=00:10:00 NodeList=gpu01 BatchHost=gpu01 "
    "StdErr=/scratch/a b/slurm-12.out StdIn=/dev/null StdOut=/scratch/a b/slurm-12.out TresPerNode=gres/gpu:1"
)


def record(state: str, code: str, reason: str = "None") -> str:
    text = CANCELLED.replace("JobState=CANCELLED", f"JobState={state}").replace(" ExitCode=0:15", f" ExitCode={code}")
    return text.replace("Reason=None", f"Reason={reason}")


@pytest.mark.parametrize(
    ("state", "code", "returncode"),
    [
        ("COMPLETED", "0:0", 0),
        ("FAILED", "2:0", 2),
        ("FAILED", "0:9", 137),
        ("CANCELLED", "0:15", 143),
        ("CANCELLED", "0:0", 1),
        ("TIMEOUT", "0:0", 1),
        ("OUT_OF_MEMORY", "0:125", 253),
        ("NODE_FAIL", "0:0", 1),
        ("PREEMPTED", "0:0", 1),
        ("COMPLETED", "0:9", 137),
    ],
)
def test_only_a_completed_slurm_job_is_a_success(state: str, code: str, returncode: int) -> None:
    job = parse_job(record(state, code))
    assert job
    assert job.returncode == returncode


def test_the_line_about_a_slurm_job_has_its_state_reason_and_what_to_do() -> None:
    job = parse_job(record("TIMEOUT", "0:0", "TimeLimit"))
    assert job
    assert job.line() == (
        "Slurm job 12 on gpu01: TIMEOUT (reason TimeLimit), exit code 0; "
        "raise `time` of the service in streamflow.yml and run again; training goes on from its checkpoint"
    )
    assert job.stdout == "/scratch/a b/slurm-12.out"


@pytest.mark.parametrize("text", ["", "slurm_load_jobs error: Invalid job id specified", "JobId=12 JobState=COMPLETED"])
def test_a_slurm_job_without_a_whole_record_is_none(text: str) -> None:
    assert parse_job(text) is None


def test_slurms_answers_are_read_with_warnings_around_them() -> None:
    said = "12 RUNNING 2026-01-02T03:04:05 None\n13_4 PENDING N/A Resources\n\npending 9 13 \nsaid 12 YWI=\nrecord 13 "
    queue, paths, news = parse_news(said + record("PENDING", "0:0"))
    assert queue["12"] == Queued(state="RUNNING", start="2026-01-02T03:04:05", reason="", ahead=None)
    assert queue["13"] == Queued(state="PENDING", start="", reason="Resources", ahead=1)
    assert paths == {"13": "/scratch/a b/slurm-12.out"}
    assert news == {"12": b"ab"}
    assert parse_news("slurm_load_jobs error: Invalid job id specified") == ({}, {}, {})
    assert parse_submission("sbatch: warning: can't run 1 processes on 2 nodes\n12;cluster\n") == "12"
    assert parse_submission("sbatch: error: no\n") is None
    said = (
        "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid partition\n"
    )
    assert refusal(said) == "invalid partition specified: x; Batch job submission failed: Invalid partition"


def test_objects_of_a_run_are_named_and_labelled_by_it_and_name_each_other_so() -> None:
    pod = {
        "metadata": {"labels": {"app": "a"}},
        "spec": {
            "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "settings"}}]}],
            "volumes": [{"configMap": {"name": "settings"}}, {"configMap": {"name": "somebody-elses"}}],
        },
    }
    objects: list[dict[str, Any]] = [
        {"kind": "ConfigMap", "metadata": {"name": "settings"}},
        {
            "kind": "Deployment",
            "metadata": {"name": "w"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "a"}}, "template": pod},
        },
        {"kind": "NetworkPolicy", "metadata": {"name": "n"}, "spec": {"podSelector": {}}},
    ]
    settings, deployment, policy = of_run(objects, "0123456789ab", namespace="ours")
    label = {"slicestream/run": "0123456789ab"}
    assert settings["metadata"] == {"name": "settings-0123456789ab", "labels": label}
    assert deployment["metadata"]["name"] == "w-0123456789ab"
    assert deployment["spec"]["selector"]["matchLabels"] == {"app": "a", **label}
    template = deployment["spec"]["template"]
    assert template["metadata"]["labels"] == {"app": "a", **label}
    assert template["spec"]["containers"][0]["envFrom"] == [{"configMapRef": {"name": "settings-0123456789ab"}}]
    assert [one["configMap"]["name"] for one in template["spec"]["volumes"]] == [
        "settings-0123456789ab",
        "somebody-elses",
    ]
    assert policy["spec"]["podSelector"] == {"matchLabels": label}
    assert workers(objects) == 3
    assert objects[0]["metadata"] == {"name": "settings"}


def test_an_object_for_another_namespace_is_refused() -> None:
    with pytest.raises(SiteError, match="namespace 'theirs', but the run uses 'ours'"):
        of_run([{"kind": "Pod", "metadata": {"name": "p", "namespace": "theirs"}}], "0123456789ab", namespace="ours")


def pod(
    reason: str | None, message: str = "", *, conditions: dict[str, str] | None = None, deleted: str | None = None
) -> Any:
    waiting = SimpleNamespace(reason=reason, message=message) if reason else None
    status = SimpleNamespace(name="infer", image="x:1", state=SimpleNamespace(waiting=waiting))
    said = [SimpleNamespace(type=name, status=value) for name, value in (conditions or {}).items()]
    return SimpleNamespace(
        metadata=SimpleNamespace(name="p-1", deletion_timestamp=deleted),
        status=SimpleNamespace(container_statuses=[status], init_container_statuses=None, conditions=said),
    )


@pytest.mark.parametrize(
    "reason", ["ErrImageNeverPull", "ImagePullBackOff", "CreateContainerConfigError", "CrashLoopBackOff"]
)
def test_a_pod_that_cannot_start_says_so_in_one_line(reason: str) -> None:
    line = stuck(pod(reason, "first\nsecond"))
    assert line
    assert line.startswith("pod p-1, container infer: ")
    assert f"{reason}: first second; " in line
    assert "\n" not in line


@pytest.mark.parametrize("reason", [None, "ContainerCreating", "ErrImagePull", "PodInitializing"])
def test_a_pod_that_may_yet_start_is_waited_for(reason: str | None) -> None:
    assert stuck(pod(reason)) is None


def test_a_worker_is_a_ready_pod_that_is_not_going() -> None:
    assert ready(pod(None, conditions={"Ready": "True", "DisruptionTarget": "False"}))
    assert not ready(pod(None, conditions={"Ready": "False"}))
    assert not ready(pod(None, conditions={"Ready": "True"}, deleted="now"))


def test_the_status_of_an_exec_gives_its_exit_code_or_none() -> None:
    cause = '{"causes":[{"reason":"ExitCode","message":"3"}]}'
    failed = f'{{"status":"Failure","message":"m","reason":"NonZeroExitCode","details":{cause}}}'
    assert parse_status('{"metadata":{},"status":"Success"}') == (0, "")
    assert parse_status(failed) == (3, "m")
    assert parse_status('{"status":"Failure","message":"container not found"}') == (-1, "container not found")
    assert parse_status("") is None


def test_what_is_sent_bears_no_name_or_number_of_its_owner(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/a").write_bytes(b"x" * 1000)
    (tree / "run.sh").write_text("true")
    (tree / "run.sh").chmod(0o755)
    (tree / "link").symlink_to(tree / "sub/a")
    stream = BytesIO(b"".join(packed(tree, "/there/tree", chunk=300)))
    with tarfile.open(fileobj=stream) as archive:
        members = {member.name: member for member in archive}
        content = archive.extractfile("there/tree/link")
        assert content
        assert content.read() == b"x" * 1000
    assert sorted(members) == [
        "there/tree",
        "there/tree/link",
        "there/tree/run.sh",
        "there/tree/sub",
        "there/tree/sub/a",
    ]
    assert {(one.uname, one.gname, one.uid, one.gid) for one in members.values()} == {("", "", 0, 0)}
    assert members["there/tree/run.sh"].mode == 0o755
    assert str(tmp_path).encode() not in stream.getvalue()


def test_a_file_that_shrinks_while_it_is_sent_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 1000)
    stream = packed(path, "a", chunk=300)
    next(stream)
    path.write_bytes(b"x" * 10)
    with pytest.raises(SiteError, match="a: became shorter while it was sent"):
        list(stream)


def test_a_folders_digest_changes_with_one_byte_and_with_a_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a").write_bytes(b"1")
    first = local_tree(tmp_path)
    # sha256sum of "<sha256 of '1'>  ./sub/a\n"
    listing = subprocess.run(
        "find -L . -type f -exec sha256sum '{}' + | LC_ALL=C sort | sha256sum",
        shell=True, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert first == listing.stdout.split()[0]
    (tmp_path / "sub/a").write_bytes(b"2")
    assert local_tree(tmp_path) != first
    (tmp_path / "sub/a").write_bytes(b"1")
    (tmp_path / "sub/a").rename(tmp_path / "sub/b")
    assert local_tree(tmp_path) != first


def sh(script: str) -> str:
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def poll(folder: Path, *, seconds: float = 10) -> str:
    end = time.monotonic() + seconds
    while (state := sh(poll_script(str(folder))).partition("\n")[0]) == "alive" and time.monotonic() < end:
        time.sleep(0.05)
    return state


def test_a_job_goes_on_without_its_starter_and_gives_output_and_exit_code(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("sleep 0.3; echo out; echo err >&2; exit 3")
    sh(start_script(str(tmp_path), "sh"))
    sh(start_script(str(tmp_path), "sh"))  # a second try, after a lost connection, starts nothing
    assert sh(poll_script(str(tmp_path))) == "alive"
    assert poll(tmp_path) == "3"
    assert (tmp_path / "log").read_text() == "out\nerr\n"
    state, said = sh(poll_script(str(tmp_path), read=3)).split("\n")
    assert (state, decoded(said)) == ("3", b"\nerr\n")


def test_a_job_killed_from_outside_is_dead_and_one_killed_by_us_ends_with_its_children(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text(f"sleep 1234.5 & echo $! >{tmp_path}/child; wait")
    sh(start_script(str(tmp_path), "sh"))
    while not (tmp_path / "child").exists():
        time.sleep(0.02)
    sh(kill_script(str(tmp_path)))
    assert poll(tmp_path) == "dead"
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "cmdline"
    assert not child.exists() or not child.read_bytes()
    assert sh(kill_script(str(tmp_path))) == ""  # again: nobody else's process


@pytest.mark.parametrize(
    ("script", "shell"),
    [("#!/bin/bash\ntrue", "/bin/bash"), ("true", "sh"), ("#!/usr/bin/env bash\n", "/usr/bin/env bash")],
)
def test_a_template_is_run_by_the_shell_that_it_asks_for(script: str, shell: str) -> None:
    assert shell_of(script) == shell
