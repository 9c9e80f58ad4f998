"""The register of runs: written first, locked while the run lives, found when it was killed."""

import json
import signal
import subprocess
import sys

import pytest

from slicestream.errors import ArtefactError, OptionError, OutputError
from slicestream.sites.runs import Place, abandoned_runs, folder, start_run

HPC = Place(kind="slurm", host="hpc", folder="/scratch/slicestream/0123456789ab")
CLOUD = Place(kind="kubernetes", host="", namespace="slicestream")
LIVING_RUN = """
import sys
from slicestream.sites.runs import Place, start_run
run = start_run(sys.argv[1])
run.add(Place(kind="slurm", host="hpc", folder=f"/scratch/slicestream/{run.id}"))
print("registered", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_register(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("SLICESTREAM_RUN", raising=False)


@pytest.fixture
def other_process():
    command = [sys.executable, "-c", LIVING_RUN, "0123456789ab"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "registered\n"
        yield process
        process.kill()


def test_a_run_is_registered_before_it_makes_anything_and_only_its_owner_can_read_it():
    run = start_run("0123456789ab")
    run.add(HPC)
    path = folder() / "0123456789ab.json"
    record = json.loads(path.read_text())
    assert record["places"] == [
        {"kind": "slurm", "host": "hpc", "folder": "/scratch/slicestream/0123456789ab", "namespace": ""}
    ]
    assert (folder().stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    run.close()
    assert list(folder().iterdir()) == []


def test_a_living_run_is_not_abandoned_and_its_id_cannot_be_taken(other_process):
    assert abandoned_runs() == []
    with pytest.raises(OptionError, match="run id 0123456789ab: already registered"):
        start_run("0123456789ab")


def test_a_killed_run_is_found_with_its_places_until_it_is_closed(other_process):
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    [run] = abandoned_runs()
    assert (run.id, run.places) == ("0123456789ab", (HPC,))
    assert abandoned_runs() == [], "whoever found it holds its lock"
    run.release()
    [again] = abandoned_runs()
    again.close()
    assert abandoned_runs() == []


def test_a_run_that_adds_places_keeps_its_lock_and_each_place_stands_once():
    run = start_run("0123456789ab")
    for place in (HPC, CLOUD, HPC, CLOUD):
        run.add(place)
        assert abandoned_runs() == []
    run.release()
    [found] = abandoned_runs()
    assert found.places == (HPC, CLOUD)
    found.close()


def test_a_work_folder_not_named_by_its_run_is_not_registered():
    run = start_run("ffffffffffff")
    with pytest.raises(ValueError, match="not named by its run"):
        run.add(HPC)
    run.close()


def test_the_run_id_comes_from_the_environment_else_it_is_random(monkeypatch):
    first, second = start_run(), start_run()
    assert first.id != second.id
    monkeypatch.setenv("SLICESTREAM_RUN", "00000000cafe")
    third = start_run()
    assert third.id == "00000000cafe"
    for run in (first, second, third):
        run.close()


@pytest.mark.parametrize("bad", ["../../../etc", "0123456789AB", "0123456789abc", "0123456789a\n"])
def test_a_run_id_is_12_hex_digits(bad):
    with pytest.raises(OptionError, match="needed: 12 digits"):
        start_run(bad)


def test_a_damaged_record_is_named_and_no_run_stays_locked():
    start_run("000000000000").release()
    (folder() / "0123456789ab.json").write_text("[]")
    with pytest.raises(ArtefactError, match=r"0123456789ab\.json: not a record of a run"):
        abandoned_runs()
    (folder() / "0123456789ab.json").unlink()
    [run] = abandoned_runs()
    run.close()


def test_a_register_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="the run cannot be registered; set XDG_STATE_HOME"):
        start_run()
