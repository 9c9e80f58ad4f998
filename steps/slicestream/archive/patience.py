"""Trying again where it may help: what failed by chance, with growing pauses, and not for ever."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from slicestream.errors import ArchiveError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
CONNECT_S = 20.0  # to connect, and for each 64 kB to be taken
ANSWER_S = 60.0  # for the next sign of an answer
LEAST_BYTES_PER_S = 10_000  # of a transfer that has gone on for ANSWER_S

T = TypeVar("T")


class TransientError(Exception):
    """May go away by itself: lost connection, overload. `pause_s` is how long the archive asks us to wait."""

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(" ".join(reason.split())[:200])
        self.pause_s = pause_s


def patiently(action: Callable[[], T], *, where: str, retries: int) -> T:
    """Return what `action` returns; after a TransientError pause, say so on stderr, and call it again.

    Raises
    ------
    ArchiveError
        It failed once more than `retries` times.
    """
    for attempt in range(retries + 1):
        try:
            return action()
        except TransientError as error:
            if attempt == retries:
                raise ArchiveError(
                    f"{where}: {error}; tried {attempt + 1} times. Check the address and that the archive runs, "
                    "then run again."
                ) from error
            growing = FIRST_PAUSE_S * 2**attempt * random.uniform(0.8, 1.2)  # noqa: S311  # spreads, hides nothing
            pause_s = min(growing if error.pause_s is None else error.pause_s, LONGEST_PAUSE_S)
            print(f"{where}: {error}; again in {pause_s:.0f} s ({attempt + 1} of {retries})", file=sys.stderr)
            time.sleep(pause_s)
    raise AssertionError("not reached")


class Pace:
    """Watches one transfer: a peer that trickles must not hold us for hours."""

    def __init__(self) -> None:
        self._start, self._bytes = time.monotonic(), 0

    def add(self, count: int) -> None:
        """Count bytes. Raises TransientError where the transfer is slower than any that can be waited for."""
        self._bytes += count
        spent_s = time.monotonic() - self._start
        if spent_s > ANSWER_S and self._bytes < LEAST_BYTES_PER_S * (spent_s - ANSWER_S):
            raise TransientError(f"only {self._bytes} bytes in {spent_s:.0f} s")
