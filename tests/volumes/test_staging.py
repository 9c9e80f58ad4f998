"""Staging: all files or none."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from slicestream.errors import OutputError, StudyError
from slicestream.volumes.files import write_text
from slicestream.volumes.staging import staged


def write_then_fail(out: Path, error: Exception, cause: Exception | None = None) -> None:
    with staged(out) as room:
        write_text(room / "mine.txt", "half")
        raise error from cause


def test_files_appear_when_the_block_ends_well(tmp_path: Path) -> None:
    with staged(tmp_path / "new" / "out") as room:
        write_text(room / "a.txt", "a")
        assert not (tmp_path / "new" / "out" / "a.txt").exists()
    assert [path.name for path in (tmp_path / "new" / "out").iterdir()] == ["a.txt"]


def test_nothing_appears_when_it_fails_and_new_folders_go(tmp_path: Path) -> None:
    with pytest.raises(StudyError):
        write_then_fail(tmp_path / "new" / "out", StudyError("bad input"))
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StudyError):
        write_then_fail(tmp_path, StudyError("bad input"))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("mine.txt", "mine")]


def test_a_full_disk_wrapped_by_a_library_is_told_as_such(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OutputError, match="No space left on device"):
        write_then_fail(tmp_path, OSError("With tag (7fe0,0010) got exception"), full)


def test_an_os_error_of_ours_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="a bug"):
        write_then_fail(tmp_path, OSError("a bug"))


def test_the_message_names_the_place_that_the_user_knows(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, staged(tmp_path) as room:
        raise OutputError(f"{room / 'a.volume'}: No space left on device")
    assert str(caught.value).startswith(f"{tmp_path / 'a.volume'}: No space")
