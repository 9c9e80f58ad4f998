"""Hanging up on a peer of an association that has gone silent, whatever it was in the middle of."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from slicestream.archive import patience


class Watch:
    """Knows when a PDU was last sent or received. pynetdicom waits for whole messages, however big, or for none."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def sign(self) -> None:
        """Note a sign of life."""
        self._last = time.monotonic()

    @contextmanager
    def over(self, connection: socket.socket | None) -> Iterator[None]:
        """Shut the connection down when there is no sign for patience.ANSWER_S while the block runs."""
        self.sign()
        done = threading.Event()

        def watch() -> None:
            while not done.wait(min(1.0, patience.ANSWER_S / 4)):
                if time.monotonic() - self._last > patience.ANSWER_S and connection is not None:
                    hang_up(connection)
                    return

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def hang_up(connection: socket.socket) -> None:
    """Wake whoever waits for this connection, by ending it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
