"""Copies to, from and between sites that are whole or an error, in bounded time.

rc3 looks at no exit status of either end, so a `tar` that fails reads as a short but complete copy
(deployment/connector/base.py:69, 215; kubernetes.py:140), waits for ever when `tar` in the pod fails
(deployment/stream.py:22), turns for ever when a stream ends early (aiotarstream.py:57), sends the user's name and
number in tar headers (aiotarstream.py:998) and tries nothing a second time.
"""

from __future__ import annotations

import contextlib
import posixpath
import shlex
import shutil
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableSequence
from functools import partial
from pathlib import Path
from typing import Any

from streamflow.core.data import StreamWrapper
from streamflow.core.deployment import Connector, ExecutionLocation
from streamflow.core.utils import get_remote_to_remote_write_command
from streamflow.deployment import aiotarstream
from streamflow.deployment.connector.base import BaseConnector, extract_tar_stream
from streamflow.deployment.stream import BaseStreamWrapper
from streamflow.log_handler import logger

from slicestream.streamflow_plugin.digests import local_tree, remote_tree
from slicestream.streamflow_plugin.faults import SiteError
from slicestream.streamflow_plugin.replaced import Redo
from slicestream.streamflow_plugin.session import current, patiently

LAPTOP = "laptop"
# GNU tar can leave out the account's name; busybox tar writes it and has no such option.
_PACK = (
    'tar --version 2>/dev/null | grep -q GNU && o="--owner=0 --group=0 --numeric-owner" || o=; '
    "exec tar $o -chf - -C {folder} {name}"
)


def pack_command(path: str) -> list[str]:
    """Return the command that writes a tar of `path`, links followed, without the account's name, on its stdout."""
    folder, name = posixpath.split(path)
    script = _PACK.format(folder=shlex.quote(folder), name=shlex.quote("./" + name if name.startswith("-") else name))
    return ["sh", "-c", shlex.quote(script)]


def packed(path: Path, name: str, *, chunk: int) -> Iterator[bytes]:
    """Yield a tar of a local file or folder under `name`: sizes, modes and times, but no owner.

    Raises
    ------
    SiteError
        A file changed its size while it was read.
    """
    for file in [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]:
        info = tarfile.TarInfo(posixpath.join(name, file.relative_to(path).as_posix()).rstrip("/.").lstrip("/"))
        status = file.stat()
        info.mode, info.mtime = status.st_mode & 0o7777, int(status.st_mtime)
        if file.is_dir():
            info.type = tarfile.DIRTYPE
            yield info.tobuf(tarfile.GNU_FORMAT)
            continue
        info.size = status.st_size
        yield info.tobuf(tarfile.GNU_FORMAT)
        yield from _content(file, info.size, chunk=chunk)
    yield tarfile.NUL * (2 * tarfile.BLOCKSIZE)


def _content(file: Path, size: int, *, chunk: int) -> Iterator[bytes]:
    left = size
    with file.open("rb") as stream:
        while left:
            if not (data := stream.read(min(chunk, left))):
                raise SiteError(f"{file.name}: became shorter while it was sent")
            left -= len(data)
            yield data
    yield tarfile.NUL * (-size % tarfile.BLOCKSIZE)


class CountingReader(BaseStreamWrapper):
    """A reader that counts what passes."""

    def __init__(self, stream: StreamWrapper) -> None:
        super().__init__(stream)
        self.count = 0

    async def read(self, size: int | None = None) -> bytes:
        """Return at most `size` bytes; none at the end."""
        data: bytes = await self.stream.read(size)
        self.count += len(data)
        return data

    async def _close(self) -> None:
        """Leave the end to the owner of the stream, who sees whether the block ended well."""


class SafeTransfers(BaseConnector):
    """The three copies of a connector, checked and tried again while a site is out of reach."""

    async def copy_local_to_remote(
        self, src: str, dst: str, locations: MutableSequence[ExecutionLocation], read_only: bool = False
    ) -> None:
        """Send a file or folder of this machine to each location."""
        for location in locations:
            what = f"sending {posixpath.basename(dst)} to {location}"
            target = await self._into(location, dst, Path(src).name)
            start = time.monotonic()
            size = await self._redoable(location, partial(self._send, Path(src), target), what=what)
            await self._same(local_tree(Path(src)), await remote_tree(self, location, target), what)
            _done(LAPTOP, location.deployment, what, size=size, start=start)

    async def copy_remote_to_local(
        self, src: str, dst: str, location: ExecutionLocation, read_only: bool = False
    ) -> None:
        """Fetch a file or folder; what a failed copy left is removed."""
        what = f"fetching {posixpath.basename(src)} from {location}"
        target = Path(dst, posixpath.basename(src)) if Path(dst).is_dir() else Path(dst)
        existed, start = target.exists(), time.monotonic()
        try:
            size = await patiently(lambda: self._fetch(src, dst, location), what=what, again=1)
            await self._same(await remote_tree(self, location, src), local_tree(target), what)
        except BaseException:
            if not existed:
                shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            raise
        _done(location.deployment, LAPTOP, what, size=size, start=start)

    async def copy_remote_to_remote(  # noqa: PLR0917 - StreamFlow's signature
        self,
        src: str,
        dst: str,
        locations: MutableSequence[ExecutionLocation],
        source_location: ExecutionLocation,
        source_connector: Connector | None = None,
        read_only: bool = False,
    ) -> None:
        """Bring a file or folder from one location to others, through this machine."""
        source = source_connector or self
        for location in locations:
            if (location.name, location.deployment) == (source_location.name, source_location.deployment):
                await self._copy_there(src, dst, location, link=read_only)
                continue
            what = f"bringing {posixpath.basename(src)} from {source_location} to {location}"
            command = await get_remote_to_remote_write_command(source, source_location, src, self, [location], dst)
            target = posixpath.join(dst, posixpath.basename(src)) if command[-1] == dst else dst
            start = time.monotonic()
            relay = partial(self._relay, source, source_location, src, _unpack(command, dst))
            size = await self._redoable(location, relay, what=what)
            before = await remote_tree(source, source_location, src)
            await self._same(before, await remote_tree(self, location, target), what)
            _done(source_location.deployment, location.deployment, what, size=size, start=start)

    def note(self, location: ExecutionLocation, redo: Redo) -> None:
        """Keep how a location was changed, where it may have to be done again elsewhere."""

    async def _redoable(
        self, location: ExecutionLocation, action: Callable[[ExecutionLocation], Awaitable[int]], *, what: str
    ) -> int:
        size = await patiently(lambda: action(location), what=what, again=1)
        self.note(location, action)
        return size

    async def _into(self, location: ExecutionLocation, dst: str, name: str) -> str:
        """Return where a copy to `dst` ends up, looked at once: a second try finds the first one's folder."""
        answer = await self.run(location, [f"test -d {shlex.quote(dst)}"], capture_output=True)
        return posixpath.join(dst, name) if answer and answer[1] == 0 else dst

    async def _send(self, src: Path, dst: str, location: ExecutionLocation) -> int:
        size = 0
        async with await self.get_stream_writer(["tar", "xpf", "-", "-C", "/"], location) as writer:
            for data in packed(src, dst, chunk=self.transferBufferSize):
                await writer.write(data)
                size += len(data)
        return size

    async def _fetch(self, src: str, dst: str, location: ExecutionLocation) -> int:
        async with await self.get_stream_reader(pack_command(src), location) as reader:
            counted = CountingReader(reader)
            try:
                async with aiotarstream.open(stream=counted, mode="r", copybufsize=self.transferBufferSize) as archive:
                    await extract_tar_stream(archive, src, dst, self.transferBufferSize)
            except tarfile.TarError as error:
                await _drain(counted)  # the other end's own words, if it has any
                raise SiteError(f"{posixpath.basename(src)}: not a whole tar: {error}") from error
            await _drain(counted)
        return counted.count

    async def _relay(
        self,
        source: Connector,
        source_location: ExecutionLocation,
        src: str,
        unpack: list[str],
        location: ExecutionLocation,
    ) -> int:
        size = 0
        async with (
            await source.get_stream_reader(pack_command(src), source_location) as reader,
            await self.get_stream_writer(unpack, location) as writer,
        ):
            while data := await reader.read(source.transferBufferSize):
                await writer.write(data)
                size += len(data)
        return size

    async def _copy_there(self, src: str, dst: str, location: ExecutionLocation, *, link: bool) -> None:
        if src == dst:
            return
        command = ["ln", "-snf"] if link else ["cp", "-rf"]
        answer = await self.run(location, [*command, shlex.quote(src), shlex.quote(dst)], capture_output=True)
        if answer and answer[1] != 0:
            raise SiteError(f"copying {posixpath.basename(src)} within {location}: {answer[0]}")

    async def _same(self, before: str, after: str, what: str) -> None:
        if before != after:
            raise SiteError(f"{what}: arrived changed (sha256 {after[:12]}, was {before[:12]}); run again")


def _unpack(command: MutableSequence[str], dst: str) -> list[str]:
    """Return rc3's unpacking command, quoted; `tar … | tee` becomes one command, whose failure is seen."""
    if "tee" in command:
        return ["tar", "xf", "-", "-O", ">", shlex.quote(dst)]
    return [part if part in ("tar", "xpf", "-") else shlex.quote(part) for part in command]


async def _drain(reader: CountingReader) -> None:
    while await reader.read(65536):
        pass


def _done(source: str, destination: str, what: str, *, size: int, start: float) -> None:
    seconds = time.monotonic() - start
    logger.info(f"COMPLETED {what}: {size / 1e6:.1f} MB in {seconds:.1f} s")
    current().record.moved(source, destination, size=size, seconds=seconds)


@contextlib.asynccontextmanager
async def closing_streams(stream: Any) -> AsyncIterator[Any]:
    """Finish a stream when its block ends well, else break it off, so that the other end sees no proper end."""
    try:
        yield stream
    except BaseException:
        await stream.abort()
        raise
    await stream.finish()
