"""Files and command lines of the sites, kept while they are there."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path


def files_below(folders: list[Path]) -> Iterator[Path]:
    """Yield the files below; folders that go meanwhile are passed over."""
    for folder in folders:
        for root, _, files in os.walk(folder):
            yield from (Path(root) / name for name in files)


class Watch(threading.Thread):
    """Keeps, as hard links, files that appear under `folders`, and the sites' command lines and environments."""

    def __init__(self, folders: list[Path], keeps: list[Path]) -> None:
        """`keeps`: where the links go, one folder per mount, because a link cannot cross one."""
        super().__init__(daemon=True)
        self.folders, self.keeps = folders, keeps
        self.spoken: set[bytes] = set()
        self.rounds = 0
        self._stop_asked = threading.Event()
        self._seen: set[tuple[int, int]] = set()
        self._laptop = str(Path("/proc/self/ns/pid").readlink())
        for path in files_below(self.folders):  # what is there already was not sent by this run
            with contextlib.suppress(OSError):
                status = path.lstat()
                self._seen.add((status.st_dev, status.st_ino))
        for keep in keeps:
            keep.mkdir(parents=True)

    def run(self) -> None:
        while not self._stop_asked.wait(0.1):
            self._look()

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()
        self._look()

    def _look(self) -> None:
        self.rounds += 1
        for path in files_below(self.folders):
            self._hold(path)
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if str((process / "ns/pid").readlink()) != self._laptop:
                    self.spoken |= {(process / part).read_bytes() for part in ("cmdline", "environ")}
            except OSError:
                continue

    def _hold(self, path: Path) -> None:
        try:
            status = path.lstat()
        except OSError:
            return
        if (status.st_dev, status.st_ino) in self._seen:
            return
        for keep in self.keeps:
            try:
                os.link(path, keep / f"{status.st_ino}-{path.name}"[:200], follow_symlinks=False)
            except OSError:
                continue
            self._seen.add((status.st_dev, status.st_ino))

    def kept(self) -> list[Path]:
        """Return the links, without those to sockets."""
        return sorted(path for keep in self.keeps for path in keep.iterdir() if path.is_file())

    def clear(self) -> None:
        """Remove the links."""
        for keep in self.keeps:
            shutil.rmtree(keep, ignore_errors=True)
