"""Commands in a pod: one websocket each, whose end counts only with a status.

rc3 lets aiohttp's errors through (deployment/connector/kubernetes.py:566), fails with a TypeError where a connection
ends without a status (:598), joins data by `+=` on bytes, which makes long downloads quadratic (:150), drops what the
command says on stderr and its exit code (:153), and closes a failed writer twice, where the second close waits for ever
(:187, deployment/stream.py:22).
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from aiohttp import WSMsgType
from kubernetes_asyncio.stream import ws_client
from streamflow.deployment.stream import BaseStreamWrapper

from slicestream.streamflow_plugin.faults import SiteError, SiteUnreachableError, command_failed
from slicestream.streamflow_plugin.pods import parse_status

CLOSE_STDIN = b"\xff\x00"
END_S = 600.0  # for a command to end once its input has ended
LOST = (aiohttp.ClientError, OSError, asyncio.TimeoutError)


class ExecStream(BaseStreamWrapper):
    """A command's stdin and stdout."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, name: str) -> None:
        super().__init__(socket)
        self.name = name
        self._out, self._said, self._status = bytearray(), bytearray(), bytearray()
        self._watch: asyncio.Task[None] | None = None

    async def read(self, size: int | None = None) -> bytes:
        """Return `size` bytes of stdout, fewer at its end; none after that, if the command has ended well."""
        while (size is None or len(self._out) < size) and await self._receive():
            pass
        if not self._out:
            self._judge()
        length = len(self._out) if size is None else min(size, len(self._out))
        data = bytes(self._out[:length])
        del self._out[:length]
        return data

    async def write(self, data: Any) -> None:
        """Send bytes to stdin; a command that has ended meanwhile is the error."""
        self._watch = self._watch or asyncio.create_task(self._ended())
        if self._watch.done():
            self._judge()
            raise SiteError(f"{self.name}: the command ended early")
        try:
            await self.stream.send_bytes(b"\x00" + data)
        except (*LOST, RuntimeError) as error:
            await self._wait()
            self._judge()
            raise SiteUnreachableError(f"{self.name}: connection lost") from error

    async def finish(self) -> None:
        """End stdin and wait for the command. Raises SiteError if it does not end well."""
        if self._watch is not None and not self._watch.done():
            try:
                await self.stream.send_bytes(CLOSE_STDIN)
            except (*LOST, RuntimeError) as error:
                raise SiteUnreachableError(f"{self.name}: connection lost") from error
        await self._wait()
        self._judge()

    async def abort(self) -> None:
        """Break off."""
        if self._watch is not None:
            self._watch.cancel()
        await self.stream.close()

    async def close(self) -> None:
        """Leave the end to the owner of the stream, who sees whether its block ended well."""

    async def _wait(self) -> None:
        self._watch = self._watch or asyncio.create_task(self._ended())
        try:
            await asyncio.wait_for(self._watch, END_S)
        except TimeoutError:
            raise SiteError(f"{self.name}: a command did not end within {END_S:.0f} s of its input's end") from None

    async def _ended(self) -> None:
        while await self._receive():
            pass

    async def _receive(self) -> bool:
        try:
            message = await self.stream.receive()
        except LOST as error:
            raise SiteUnreachableError(f"{self.name}: {error or type(error).__name__}") from error
        if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
            return False
        data = message.data.encode() if isinstance(message.data, str) else message.data
        channels = {
            ws_client.STDOUT_CHANNEL: self._out,
            ws_client.STDERR_CHANNEL: self._said,
            ws_client.ERROR_CHANNEL: self._status,
        }
        channels.get(data[0], self._said).extend(data[1:])
        return True

    def _judge(self) -> None:
        if (ended := parse_status(self._status.decode())) is None:
            raise SiteUnreachableError(f"{self.name}: connection lost")
        if ended[0] != 0:
            raise command_failed(self.name, self._said.decode(errors="replace"), ended[1])
