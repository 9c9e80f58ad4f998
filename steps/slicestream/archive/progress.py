"""How far a transfer is, on stderr, now and then."""

from __future__ import annotations

import sys
import time

EVERY_S = 5.0


class Progress:
    """Counts instances and bytes; prints a line every few seconds and at the end."""

    def __init__(self, what: str, *, total: int) -> None:
        self._what, self._total = what, total
        self._count, self._bytes, self._start = 0, 0, time.monotonic()
        self._shown = self._start

    def add(self, count: int, size: int) -> None:
        """Count what is done."""
        self._count, self._bytes = self._count + count, self._bytes + size
        if time.monotonic() - self._shown >= EVERY_S:
            self._show()

    def end(self) -> None:
        """Print the last line."""
        if self._total:
            self._show()

    def _show(self) -> None:
        self._shown = time.monotonic()
        megabytes, spent_s = self._bytes / 1e6, max(self._shown - self._start, 1e-3)
        print(
            f"{self._what} {self._count} of {self._total} instances, {megabytes:.1f} MB, "
            f"{megabytes / spent_s:.1f} MB/s",
            file=sys.stderr,
            flush=True,
        )
