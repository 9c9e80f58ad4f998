"""Sending files to an archive until each has arrived once, and reading them back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from slicestream.archive.archive import Archive
from slicestream.archive.instances import LocalFile
from slicestream.archive.patience import TransientError, patiently
from slicestream.archive.progress import Progress
from slicestream.archive.readback import difference
from slicestream.archive.reasons import NotOfferedError
from slicestream.errors import ArchiveError

BATCH_BYTES = 64 * 1024**2  # of one request; a bigger file goes alone


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """What came of sending, by SOP Instance UID: why some failed, and why some that were taken could not be checked."""

    failures: dict[str, str]
    unchecked: dict[str, str]


def send(archive: Archive, files: Sequence[LocalFile], *, where: str, retries: int) -> Sent:
    """Store every file, then fetch and compare each.

    Raises
    ------
    ArchiveError
        It cannot be reached, or refuses all that is sent.
    """
    failures: dict[str, str] = {}
    patiently(lambda: archive.probe(files[0].instance.study), where=where, retries=retries)
    progress = Progress("sent", total=len(files))
    for batch in _batches(files):
        failures |= _store(archive, batch, where=where, retries=retries)
        progress.add(len(batch), sum(file.size for file in batch))
    progress.end()
    stored = [file for file in files if file.instance.uid not in failures]
    unchecked: dict[str, str] = {}
    progress = Progress("read back", total=len(stored))
    with tempfile.TemporaryDirectory(prefix="slicestream-") as folder:
        for file in stored:
            try:
                if found := _differs(archive, file, Path(folder), where=where, retries=retries):
                    failures[file.instance.uid] = found
            except NotOfferedError as error:
                unchecked[file.instance.uid] = str(error)
                continue
            progress.add(1, file.size)
    progress.end()
    return Sent(failures=failures, unchecked=unchecked)


def _batches(files: Sequence[LocalFile]) -> Iterator[list[LocalFile]]:
    batch: list[LocalFile] = []
    for file in files:
        if batch and sum(one.size for one in batch) + file.size > BATCH_BYTES:
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def _store(archive: Archive, batch: Sequence[LocalFile], *, where: str, retries: int) -> dict[str, str]:
    """Send a batch; after a lost connection only what has not arrived. Return the failures."""
    done: set[str] = set()
    failures: dict[str, str] = {}
    lost = False

    def attempt() -> None:
        nonlocal lost
        if lost:
            done.update(_arrived(archive, batch))
        left = [file for file in batch if file.instance.uid not in done and file.instance.uid not in failures]
        try:
            if left:
                failures.update(archive.store(left, done))
        except TransientError:
            lost = True
            raise

    patiently(attempt, where=where, retries=retries)
    return failures


def _arrived(archive: Archive, batch: Sequence[LocalFile]) -> set[str]:
    """Return which of a batch the archive has. Where it answers no questions, none is known to have arrived."""
    wanted = sorted({(file.instance.study, file.instance.series) for file in batch})
    try:
        return {instance.uid for study, series in wanted for instance in archive.instances(study, series)}
    except NotOfferedError:
        return set()


def _differs(archive: Archive, file: LocalFile, folder: Path, *, where: str, retries: int) -> str:
    copy = folder / "copy.dcm"
    try:
        patiently(lambda: archive.fetch(file.instance, copy), where=where, retries=retries)
    except NotOfferedError:
        raise
    except ArchiveError as error:
        return f"was taken, but is not given back: {error}"
    found = difference(file.path, copy)
    copy.unlink()
    return f"the archive's copy is not what was sent: {found}" if found else ""
