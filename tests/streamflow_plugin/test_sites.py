"""The plugin on the real sites: each test is a whole `streamflow run`."""

from __future__ import annotations

import copy
import hashlib
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bed import HPC
from streamflow_plugin.laptop import SCRATCH, Laptop
from streamflow_plugin.wire import Wire

EACH = pytest.mark.parametrize("laptop", ["hpc", "occam", "cloud"], indirect=True)
ON_HPC, ON_OCCAM, ON_CLOUD = (
    pytest.mark.parametrize("laptop", [one], indirect=True) for one in ("hpc", "occam", "cloud")
)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@EACH
def test_a_step_runs_there_and_its_file_comes_back_whole_and_nothing_stays(laptop: Laptop, data: Path) -> None:
    outcome = laptop.run('cp "$1" made; echo "run $SLICESTREAM_RUN"', data)
    assert outcome.status == 0, outcome.said
    assert outcome.log == f"run {laptop.run_id}\n"
    assert digest(outcome.out / "made") == digest(data)
    assert laptop.left() == []


@EACH
def test_a_directory_with_directories_comes_back_as_it_went(laptop: Laptop, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("a.txt", "sub/b.txt", "sub/sub/c d.txt"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    outcome = laptop.run('cp -rL "$1" made', tree)
    assert outcome.status == 0, outcome.said
    files = {
        path.relative_to(outcome.out / "made").as_posix(): path.read_text() for path in _files(outcome.out / "made")
    }
    assert files == {name: name for name in ("a.txt", "sub/b.txt", "sub/sub/c d.txt")}


@ON_CLOUD
def test_a_directory_that_one_worker_gets_from_another_is_there_as_it_was(laptop: Laptop, tmp_path: Path) -> None:
    (tmp_path / "tree/sub/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/sub/c").write_text("c")
    laptop.workers["spec"]["replicas"] = 2
    laptop.scattered = True
    outcome = laptop.run('cd "$1"; find . -type f; sleep 3', tmp_path / "tree")
    assert outcome.status == 0, outcome.said
    assert len({job["location"] for job in outcome.record["jobs"]}) == 2
    assert [path.read_text() for path in outcome.out.glob("log*")] == ["./sub/sub/c\n"] * 2


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@EACH
def test_the_record_says_where_and_how_much(laptop: Laptop, data: Path) -> None:
    outcome = laptop.run('cp "$1" made', data)
    (job,) = outcome.record["jobs"]
    assert (job["step"], job["status"]) == ("/work", "completed")
    assert 0 < job["seconds"] < 60
    assert (job["slurm_job"] is not None) == (job["deployment"] == "hpc")
    links = {(link["source"], link["destination"]): link for link in outcome.record["transfers"]}
    site = job["deployment"]
    assert links[("laptop", site)]["files"] == 2
    assert 3_000_000 <= links[(site, "laptop")]["bytes"] < 3_100_000


@EACH
def test_a_failed_step_is_one_error_with_its_last_lines_and_is_not_run_again(laptop: Laptop, data: Path) -> None:
    outcome = laptop.run('echo "volume broken: need 3 axes" >&2; exit 2', data)
    assert outcome.status == 1
    told = [error for error in outcome.errors if "volume broken: need 3 axes" in error]
    assert len(told) == 1
    assert "exit code 2" in told[0]
    assert "Traceback" not in outcome.said
    assert len(outcome.record["jobs"]) == 1
    assert laptop.left() == []


@EACH
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_no_job_process_folder_or_pod(laptop: Laptop, data: Path, number: int) -> None:
    laptop.in_background = number == signal.SIGTERM
    running = laptop.start("echo here > here; sleep 300", data)
    _started(laptop)
    running.send_signal(number)
    outcome = laptop.end(running, seconds=90)
    assert outcome.status == -signal.SIGINT
    assert "Traceback" not in outcome.said, outcome.said[-3000:]
    assert laptop.left() == []


def _started(laptop: Laptop) -> None:
    """Wait until the step's own first command has run."""
    target = laptop.config["workflows"]["main"]["bindings"][0]["target"]["deployment"]
    if target != "cloud":
        laptop.wait_for(f"ls {SCRATCH}/plugin-tests/{laptop.run_id}/*/here 2>/dev/null")
        return
    name = ""
    for _ in range(200):
        if laptop.running is None or laptop.running.poll() is not None:
            break
        name = name or laptop.kubectl("get", "pods", "-o", "name", "-l", f"slicestream/run={laptop.run_id}").strip()
        look = ("exec", name, "--", "sh", "-c", "ls /work/*/*/here && echo yes; true")
        if name and "yes" in laptop.kubectl(*look, check=False):
            return
        time.sleep(0.2)
    assert laptop.running
    laptop.running.terminate()
    pytest.fail(f"the step did not start: {laptop.running.communicate(timeout=60)[0]}")


@ON_HPC
def test_a_cancelled_job_is_run_again_and_says_so(laptop: Laptop, data: Path) -> None:
    running = laptop.start('echo here > here; sleep 6; cp "$1" made', data)
    _started(laptop)
    laptop.bed.ssh(f"scancel --name=slicestream-{laptop.run_id}")
    outcome = laptop.end(running)
    assert outcome.status == 0, outcome.said
    assert re.search(r"Slurm job \d+ on gpu01: CANCELLED", outcome.said)
    assert digest(outcome.out / "made") == digest(data)


@ON_HPC
def test_a_job_over_its_time_is_a_failure_with_slurms_state_and_the_last_lines(laptop: Laptop, data: Path) -> None:
    laptop.config["deployments"]["hpc"]["config"]["services"]["train"]["time"] = "00:00:05"
    outcome = laptop.run("echo epoch 7; sleep 300", data, seconds=180)
    assert outcome.status == 1
    (told,) = [error for error in outcome.errors if "TIMEOUT" in error]
    assert "raise `time`" in told
    assert "epoch 7" in told
    assert laptop.left() == []


@ON_HPC
@pytest.mark.parametrize(
    ("option", "value", "words"),
    [("partition", "nowhere", "invalid partition specified: nowhere"), ("gres", "gpu:99", "node configuration")],
)
def test_a_job_that_slurm_refuses_is_one_line(laptop: Laptop, data: Path, option: str, value: str, words: str) -> None:
    laptop.config["deployments"]["hpc"]["config"]["services"]["train"][option] = value
    outcome = laptop.run("true", data)
    assert outcome.status == 1
    (told,) = [error for error in outcome.errors if words in error]
    assert "\n" not in told
    assert laptop.left() == []


@ON_HPC
def test_a_wrong_host_key_is_one_line_and_nothing_is_sent(laptop: Laptop, data: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(laptop.bed.home / ".ssh", home / ".ssh")
    config = home / ".ssh/config"
    text = config.read_text()
    known = next(line.split()[1] for line in text.splitlines() if "UserKnownHostsFile" in line)
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7m2v5C7l3o4l0mZ2nYwYkVq0y0V6zZ0V3yq7Z0V3yq"
    (home / "known").write_text(
        "".join(f"{line.split()[0]} {other}\n" for line in Path(known).read_text().splitlines())
    )
    config.write_text(text.replace(known, str(home / "known")))
    outcome = laptop.run("true", data, HOME=str(home), seconds=60)
    assert outcome.status == 1
    assert any("slicestream-hpc: host key is not" in error and "\n" not in error for error in outcome.errors)
    assert laptop.left() == []


@ON_CLOUD
def test_an_image_that_is_missing_in_the_cluster_is_one_line_soon(laptop: Laptop, data: Path) -> None:
    container = laptop.workers["spec"]["template"]["spec"]["containers"][0]
    container["image"] = "localhost/nothing:1"
    outcome = laptop.run("true", data, seconds=60)
    assert outcome.status == 1
    (told,) = [error for error in outcome.errors if "ErrImageNeverPull" in error]
    assert "localhost/nothing:1" in told
    assert "\n" not in told
    assert laptop.left() == []


@ON_CLOUD
def test_a_worker_too_big_for_the_cluster_is_one_line_after_the_timeout(laptop: Laptop, data: Path) -> None:
    container = laptop.workers["spec"]["template"]["spec"]["containers"][0]
    container["resources"] = {"requests": {"cpu": "1000"}}
    laptop.config["deployments"]["cloud"]["config"]["timeout"] = 5
    outcome = laptop.run("true", data, seconds=60)
    assert outcome.status == 1
    (told,) = [error for error in outcome.errors if "Unschedulable" in error]
    assert "0 of 1 workers ready after 5 s" in told
    assert laptop.left() == []


@ON_CLOUD
def test_a_pod_that_is_deleted_is_replaced_and_its_work_done_again(laptop: Laptop, data: Path) -> None:
    running = laptop.start('echo here > here; sleep 6; cp "$1" made; echo done', data)
    _started(laptop)
    (name,) = laptop.kubectl("get", "pods", "-o", "name", "-l", f"slicestream/run={laptop.run_id}").split()
    laptop.as_administrator("delete", name, "--wait=false", "--grace-period=0", "--force")
    outcome = laptop.end(running)
    assert outcome.status == 0, outcome.said
    assert "are done again in" in outcome.said
    assert digest(outcome.out / "made") == digest(data)
    assert laptop.left() == []


@pytest.fixture
def wire(laptop: Laptop) -> Iterator[Wire]:
    """The connection to the ssh sites goes over this wire."""
    options = subprocess.run(
        ["ssh", "-F", laptop.bed.home / ".ssh/config", "-G", HPC], capture_output=True, text=True, check=True
    ).stdout
    found = dict(line.split(" ", 1) for line in options.splitlines())
    made = Wire(found["hostname"], int(found["port"]))
    home = laptop.folder / "home"
    shutil.copytree(laptop.bed.home / ".ssh", home / ".ssh")
    config = home / ".ssh/config"
    text = re.sub(
        r"HostName .*",
        f"HostName 127.0.0.1\n  Port {made.port}\n  HostKeyAlias {found['hostname']}",
        config.read_text(),
    )
    config.write_text(text)
    laptop.environment["HOME"] = str(home)
    yield made
    made.cut()


@pytest.mark.parametrize("laptop", ["hpc", "occam"], indirect=True)
def test_a_connection_lost_for_ten_seconds_while_a_file_is_sent_changes_nothing(
    laptop: Laptop, wire: Wire, tmp_path: Path
) -> None:
    data = tmp_path / "big.bin"
    data.write_bytes(secrets.token_bytes(1 << 20) * 150)
    running = laptop.start('echo here > here; sleep 3; cp "$1" made', data)
    _wait_until(lambda: wire.passed > 30_000_000)
    wire.cut()
    time.sleep(10)
    wire.mend()
    outcome = laptop.end(running)
    assert outcome.status == 0, outcome.said
    assert "trying again" in outcome.said
    assert digest(outcome.out / "made") == digest(data)
    assert laptop.left() == []


@pytest.mark.parametrize("laptop", ["hpc", "occam"], indirect=True)
def test_a_connection_lost_while_a_job_runs_changes_nothing(laptop: Laptop, wire: Wire, data: Path) -> None:
    running = laptop.start('echo here > here; sleep 6; cp "$1" made', data)
    _started(laptop)
    wire.cut()
    time.sleep(3)
    wire.mend()
    outcome = laptop.end(running)
    assert outcome.status == 0, outcome.said
    assert digest(outcome.out / "made") == digest(data)
    assert len(laptop.wait_for(f"echo n; ls {SCRATCH}/plugin-tests | grep -c {laptop.run_id} || true").split()) == 2
    assert laptop.left() == []


def _wait_until(met: Callable[[], bool], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("laptop", ["occam", "cloud"], indirect=True)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_changes_on_its_way_stops_the_run_with_its_name(laptop: Laptop, data: Path, kind: str) -> None:
    made = "made" if kind == "file" else "made/part"
    changes = f"while sleep 0.01; do echo x >> {made}; done"
    script = f'mkdir -p "$(dirname {made})"; cp "$1" {made}; setsid sh -c "{changes}" </dev/null >/dev/null 2>&1 &'
    outcome = laptop.run(script, data)
    assert outcome.status == 1, outcome.said
    assert any("made" in error for error in outcome.errors), outcome.errors
    assert laptop.left() == []


def test_the_next_run_removes_what_a_killed_one_left(laptop: Laptop, data: Path) -> None:
    running = laptop.start("echo here > here; sleep 300", data)
    _started(laptop)
    running.kill()
    running.communicate()
    assert laptop.left() != []
    killed, laptop.run_id = laptop.run_id, secrets.token_hex(6)
    outcome = laptop.run("true", data)
    assert outcome.status == 0, outcome.said
    laptop.run_id = killed
    assert laptop.left() == []


def test_a_step_that_sees_identities_is_not_sent_anywhere(laptop: Laptop, data: Path) -> None:
    laptop.step = "export"
    laptop.config["workflows"]["main"]["bindings"][0]["step"] = "/export"
    outcome = laptop.run("true", data)
    assert outcome.status == 1
    assert any("/export goes to deployment 'hpc' of type slurm" in error for error in outcome.errors), outcome.said
    assert "run " + laptop.run_id not in outcome.said


def test_an_all_local_run_registers_nothing_and_is_recorded(laptop: Laptop, data: Path) -> None:
    laptop.config["workflows"]["main"]["bindings"] = []
    del laptop.config["deployments"]
    outcome = laptop.run('cp "$1" made', data, HOME=str(laptop.folder))
    assert outcome.status == 0, outcome.said
    assert [(job["step"], job["location"]) for job in outcome.record["jobs"]] == [("/work", "__LOCAL__")]
    assert outcome.record["transfers"] == []
    assert not (laptop.folder / "state").exists()


@ON_CLOUD
def test_two_runs_at_once_use_their_own_workers(laptop: Laptop, data: Path, tmp_path: Path) -> None:
    other = copy.deepcopy(laptop)
    other.folder, other.run_id = tmp_path / "other", secrets.token_hex(6)
    other.folder.mkdir()
    both = [one.start('cp "$1" made; sleep 2; hostname', data) for one in (laptop, other)]
    outcomes = [one.end(running) for one, running in zip((laptop, other), both, strict=True)]
    for one, outcome in zip((laptop, other), outcomes, strict=True):
        assert outcome.status == 0, outcome.said
        assert f"plugin-test-{one.run_id}-" in outcome.log
        assert digest(outcome.out / "made") == digest(data)
        assert one.left() == []
