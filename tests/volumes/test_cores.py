from pathlib import Path

import pytest

from slicestream.volumes.cores import available_cores


def test_cores_are_those_of_the_affinity_or_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr("slicestream.volumes.cores._CGROUP_QUOTA", quota)
    assert available_cores() == 8
    for text, cores in (("max 100000", 8), ("250000 100000", 3), ("1600000 100000", 8), ("1000 100000", 1)):
        quota.write_text(text)
        assert available_cores() == cores
