"""The ssh connector: the user's whole OpenSSH configuration, copies that end, jobs that outlive a lost connection.

rc3 (deployment/connector/ssh.py) passes None, [] and 22 where streamflow.yml is silent, which asyncssh takes as set, so
that User, IdentityFile, Port and ProxyJump of ~/.ssh/config count for nothing (:73-95); after three failed connections
it refuses the host for good (:187); it looks at no exit status of a stream (:358, :384); a job ends as soon as its
connection does, and the remote process lives on (:809).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, MutableMapping, MutableSequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncssh
from streamflow.core import utils
from streamflow.core.data import StreamWrapper
from streamflow.core.deployment import ExecutionLocation
from streamflow.deployment.connector.ssh import SSHConfig, SSHConnector, SSHContext, get_param_from_file
from streamflow.deployment.stream import BaseStreamWrapper

from slicestream.streamflow_plugin.faults import SiteError, SiteUnreachableError, command_failed
from slicestream.streamflow_plugin.jobs import DetachedJobs, once
from slicestream.streamflow_plugin.session import current, patiently
from slicestream.streamflow_plugin.transfers import SafeTransfers, closing_streams

CIPHERS = [
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes256-ctr",
]
ALIVE_EVERY_S, ALIVE_TRIES = 10, 6
LOST = (asyncssh.Error, OSError, asyncio.TimeoutError, EOFError)


class ConfigSSHContext(SSHContext):
    """A connection that passes on only what streamflow.yml says, so that ~/.ssh/config gives the rest."""

    _ssh_connection: asyncssh.SSHClientConnection | None

    async def _get_connection(self, config: SSHConfig | None) -> asyncssh.SSHClientConnection | None:
        if config is None:
            return None
        host, _, port = config.hostname.partition(":")
        options = {
            "client_keys": config.client_keys or (),
            "username": config.username or (),
            "port": int(port) if port else (),
            "tunnel": await self._get_connection(config.tunnel) or (),
            "passphrase": get_param_from_file(config.ssh_key_passphrase_file, self._streamflow_config_dir) or (),
            "password": get_param_from_file(config.password_file, self._streamflow_config_dir) or (),
        }
        return await asyncssh.connect(
            host,
            known_hosts=() if config.check_host_key else None,
            compression_algs=None,
            encryption_algs=CIPHERS,
            connect_timeout=config.connect_timeout,
            keepalive_interval=ALIVE_EVERY_S,
            keepalive_count_max=ALIVE_TRIES,
            **{name: value for name, value in options.items() if value != ()},
        )

    async def get_connection(self) -> asyncssh.SSHClientConnection:
        """Return a living connection.

        Raises
        ------
        SiteUnreachableError
            The host does not answer.
        SiteError
            Another try would not help: wrong host key, no permission, unknown host.
        """
        if self._ssh_connection is not None and self._ssh_connection.is_closed():
            await self.reset()
        try:
            connection = await super().get_connection()
            current().reached.add(self.get_hostname())
            return connection
        except LOST as error:
            await self.reset()
            raise ssh_error(self.get_hostname(), error) from error

    async def close(self) -> None:
        """Drop the connection without waiting for a peer that may be gone."""
        if self._ssh_connection is not None:
            self._ssh_connection.abort()
            self._ssh_connection = None
        self._connecting = False

    async def reset(self) -> None:
        """Forget the connection; how long to try again is for `patiently` to say."""
        await self.close()
        self._connect_event.clear()


def ssh_error(host: str, error: BaseException) -> SiteError:
    """Return the one line for what went wrong with a connection."""
    text = str(error) or type(error).__name__
    match error:
        case asyncssh.HostKeyNotVerifiable():
            return SiteError(
                f"{host}: host key is not the known one ({text}); nothing was sent. If the site has changed it, ask "
                f"its staff for the new fingerprint, then: ssh-keygen -R {host}; ssh {host}"
            )
        case asyncssh.PermissionDenied():
            return SiteError(f"{host}: {text}; check that `ssh {host}` works without a password prompt")
        case asyncssh.ConfigParseError() | asyncssh.KeyImportError() | FileNotFoundError():
            return SiteError(f"{host}: {text}; check ~/.ssh/config")
        case OSError(errno=code) if code is not None and code < 0:  # the resolver's codes
            return SiteError(f"{host}: unknown host; add it to ~/.ssh/config")
        case _:
            return SiteUnreachableError(f"{host}: {text}")


class _Stream(BaseStreamWrapper):
    """One end of a remote command, which counts only when the command ends with 0."""

    def __init__(self, process: asyncssh.SSHClientProcess[bytes], host: str) -> None:
        super().__init__(process)
        self.process, self.host = process, host

    async def read(self, size: int | None = None) -> bytes:
        """Return bytes; none at the end, if the command has ended well."""
        try:
            data = await self.process.stdout.read(-1 if size is None else size)
        except LOST as error:
            raise ssh_error(self.host, error) from error
        if not data:
            await self.finish()
        return data

    async def write(self, data: Any) -> None:
        """Send bytes; what the command says when it does not take them is the error."""
        try:
            self.process.stdin.write(data)
            await self.process.stdin.drain()
        except LOST:
            await self.finish()
            raise SiteError(f"{self.host}: the remote command ended early") from None

    async def finish(self) -> None:
        """Close the command's input and wait for its end. Raises SiteError if that is not a good one."""
        with contextlib.suppress(*LOST):  # it has ended already
            self.process.stdin.write_eof()
        try:
            _, said = await self.process.communicate()
        except LOST as error:
            raise ssh_error(self.host, error) from error
        if self.process.returncode is None:
            raise SiteUnreachableError(f"{self.host}: connection lost")
        if self.process.returncode != 0:
            text = said.decode(errors="replace") if isinstance(said, bytes) else said or ""
            raise command_failed(self.host, text, f"exit code {self.process.returncode}")

    async def abort(self) -> None:
        """Break off, so that the other end sees no proper end."""
        with contextlib.suppress(*LOST):
            self.process.kill()
        self.process.close()

    async def close(self) -> None:
        """Leave the end to the owner of the stream, who sees whether its block ended well."""


class SafeSSHConnector(SafeTransfers, DetachedJobs, SSHConnector):
    """`ssh`, with checked copies and with jobs that are looked after by polling."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cls_context = ConfigSSHContext
        self._over = False

    async def get_stream_reader(
        self, command: MutableSequence[str], location: ExecutionLocation
    ) -> AbstractAsyncContextManager[StreamWrapper]:
        """Return a reader of the command's stdout."""
        return self._stream(command, location)

    async def get_stream_writer(
        self, command: MutableSequence[str], location: ExecutionLocation
    ) -> AbstractAsyncContextManager[StreamWrapper]:
        """Return a writer to the command's stdin."""
        return self._stream(command, location)

    @contextlib.asynccontextmanager
    async def _stream(self, command: MutableSequence[str], location: ExecutionLocation) -> AsyncIterator[_Stream]:
        context = self._get_ssh_context_factory(location).get(
            command=" ".join(command), environment=location.environment, encoding=None
        )
        async with self._told(location), context as process, closing_streams(_Stream(process, location.name)) as stream:
            yield stream

    @contextlib.asynccontextmanager
    async def _told(self, location: ExecutionLocation) -> AsyncIterator[None]:
        try:
            yield
        except LOST as error:
            raise ssh_error(location.name, error) from error

    async def run(  # noqa: PLR0917 - StreamFlow's signature
        self,
        location: ExecutionLocation,
        command: MutableSequence[str],
        environment: MutableMapping[str, str] | None = None,
        workdir: str | None = None,
        stdin: int | str | None = None,
        stdout: int | str = asyncio.subprocess.STDOUT,
        stderr: int | str = asyncio.subprocess.STDOUT,
        capture_output: bool = False,
        timeout: int | None = None,
        job_name: str | None = None,
    ) -> tuple[str, int] | None:
        """Run a command, tried again while the host is out of reach; a job runs detached and is polled."""
        if job_name is not None:
            environment = {**(environment or {}), "SLICESTREAM_RUN": current().id}
            text = utils.create_command(type(self).__name__, command, environment, workdir, stdin, stdout, stderr)
            text = self.template_map.get_command(
                command=text, template=location.service, environment=environment, workdir=workdir
            )
            return await self.run_job(
                location, text, job_name=job_name, workdir=workdir, stdout=stdout, timeout=timeout
            )
        if self._over:
            raise SiteError(f"{location}: the run is ending")
        if "sbatch" in command:
            current().check_open()
            command = once(command)
        return await patiently(
            lambda: self._run_once(location, command, environment, workdir, timeout), what=f"a command on {location}"
        )

    async def _run_once(
        self,
        location: ExecutionLocation,
        command: MutableSequence[str],
        environment: MutableMapping[str, str] | None,
        workdir: str | None,
        timeout: int | None,
    ) -> tuple[str, int]:
        try:
            shell = await self.get_shell(command=["sh"], location=location)
            answer = await shell.execute(
                command=command, environment=environment, workdir=workdir, capture_output=True, timeout=timeout
            )
        except BaseException as error:  # the kept shell is of no more use: what it still says belongs to this command
            self._shells.pop(location.name, None)
            if isinstance(error, SiteError) or not isinstance(error, Exception):
                raise
            cause = error.__cause__ or error
            if isinstance(cause, SiteError):
                raise cause from None
            raise ssh_error(location.name, cause) from error
        return answer[0], answer[1]

    async def undeploy(self, external: bool) -> None:
        """Kill the jobs that still run, then drop the connections."""
        await self.kill_jobs()
        self._over = True
        self._shells.clear()
        await super().undeploy(external)
