"""A checkpoint outlives the job: in the site's scratch, found by what is trained, used by one process at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from slicestream.errors import OutputError
from slicestream.volumes.files import atomic_path

_STATE = "state.pt"


def default_folder() -> Path:
    """Return the folder of checkpoints: $SLICESTREAM_SCRATCH, else one in the user's cache."""
    scratch = os.environ.get("SLICESTREAM_SCRATCH")
    return Path(scratch) if scratch else Path.home() / ".cache" / "slicestream" / "checkpoints"


def checkpoint_key(configuration: Mapping[str, Any]) -> str:
    """Return 32 hex digits of `configuration` (data, recipe, seed, …), torch's version and this room's code."""
    digest = hashlib.sha256(json.dumps(dict(configuration), sort_keys=True).encode())
    digest.update(torch.__version__.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:32]


class Checkpoint:
    """The state of one training: saved whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _STATE

    def load(self) -> dict[str, Any] | None:
        """Return the saved state, tensors on the CPU, or None where there is none that can be read."""
        if not self._path.exists():
            return None
        try:
            return dict(torch.load(self._path, map_location="cpu", weights_only=True))
        except Exception as error:  # damaged bytes make the unpickler raise almost anything
            print(f"train: {self._path} cannot be read ({error}); starting from the beginning", file=sys.stderr)
            return None

    def save(self, state: Mapping[str, Any]) -> None:
        """Write `state`. Raises OutputError."""
        with atomic_path(self._path, mode=0o600) as partial:
            try:
                torch.save(dict(state), partial)
            except RuntimeError as error:  # what torch makes of a full disk
                raise OutputError(
                    f"{self._path}: cannot be written ({str(error).splitlines()[0]}); the last checkpoint is kept. "
                    "Free space or choose another --checkpoints, then run again: training goes on from there."
                ) from error


@contextmanager
def locked_checkpoint(root: Path, key: str) -> Iterator[Checkpoint]:
    """Yield the checkpoint of `key` under `root`; remove it when the block ends well, keep it when it does not.

    Raises
    ------
    OutputError
        Another process trains the same thing now, or the folder cannot be written.
    """
    folder, lock = root / key, root / f"{key}.lock"
    handle = _lock(root, lock)
    try:
        yield Checkpoint(folder)
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _lock(root: Path, lock: Path) -> int:
    while True:
        try:
            root.mkdir(parents=True, exist_ok=True)
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise OutputError(
                f"{root}: {error.strerror}; need a folder for checkpoints. Give one with --checkpoints."
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise OutputError(
                f"{lock}: another process trains on the same data with the same recipe. "
                "Wait for it, or give another --checkpoints."
            ) from error
        # Its last owner may have removed the file between our opening and locking it.
        if lock.exists() and os.fstat(handle).st_ino == lock.stat().st_ino:
            return handle
        os.close(handle)
