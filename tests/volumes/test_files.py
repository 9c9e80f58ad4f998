import os
import subprocess

import numpy as np
import pytest

from made import volume
from slicestream.errors import OutputError
from slicestream.volumes.files import atomic_path, write_text
from slicestream.volumes.volume import write_volume


@pytest.fixture
def mount(tmp_path):
    """Mount a small tmpfs; skip where that is not allowed."""
    folder = tmp_path / "mount"
    folder.mkdir()

    def do(options):
        if os.geteuid() != 0:
            pytest.skip("mounting needs root")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"mount refused: {done.stderr.decode().strip()}")
        return folder

    yield do
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def test_text_is_written_with_its_mode(tmp_path):
    write_text(tmp_path / "new" / "key", "µ\n", mode=0o600)
    assert (tmp_path / "new" / "key").read_text(encoding="utf-8") == "µ\n"
    assert (tmp_path / "new" / "key").stat().st_mode & 0o777 == 0o600


def test_failure_inside_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    write_text(tmp_path / "a", "old")

    def fail():
        with atomic_path(tmp_path / "a") as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_full_disk_is_one_clear_line_and_nothing_stays(mount):
    folder = mount("size=256k")
    noise = np.random.default_rng(0).integers(-1024, 3071, (8, 256, 256)).astype(np.int16)
    with pytest.raises(OutputError, match=r"a\.volume: No space left on device; nothing was kept half-written"):
        write_volume(folder / "a.volume", volume(noise))
    assert list(folder.iterdir()) == []


def test_read_only_mount_is_one_clear_line(mount):
    folder = mount("ro")
    with pytest.raises(OutputError, match=r"a\.txt: Read-only file system; .* choose another --out"):
        write_text(folder / "a.txt", "text")


def test_folder_that_is_a_file_is_one_clear_line(tmp_path):
    write_text(tmp_path / "a", "text")
    with pytest.raises(OutputError, match="choose another --out"):
        write_text(tmp_path / "a" / "b", "text")
