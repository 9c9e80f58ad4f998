"""Commands on a site behind ssh, reached as OpenSSH would: by an alias of ~/.ssh/config, to a host whose key is known.

OpenSSH itself says what an alias means (`ssh -G`), so Include, Match and patterns count. No password is asked for.
"""

from __future__ import annotations

import logging
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import paramiko

from slicestream.errors import SiteError

CONNECT_S = 10.0
COMMAND_S = 120.0
_BEGINS = "slicestream-begins"
_FAULTS = (paramiko.SSHException, OSError, EOFError)  # a time-out is an OSError


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a command on a site printed, and its exit status."""

    status: int
    out: str
    err: str


@dataclass(kw_only=True, slots=True)
class Site:
    """An open connection. `host` is the alias that its user knows it by."""

    host: str
    client: paramiko.SSHClient

    def run(self, script: str, *, seconds: float = COMMAND_S) -> Answer:
        """Run POSIX shell, whatever the login shell. Raises SiteError if the link breaks or time runs out."""
        # The script is whole before it starts, so that no command reads from it.
        text = f"{{\necho {_BEGINS}\n{script}\n}} < /dev/null\n"
        status, out, err = self.feed("exec sh -s", text.encode(), seconds=seconds)
        said = out.decode(errors="replace").partition(f"{_BEGINS}\n")[2]  # a site's .bashrc may greet before
        return Answer(status=status, out=said, err=err.decode(errors="replace"))

    def feed(self, command: str, data: bytes, *, seconds: float = COMMAND_S) -> tuple[int, bytes, bytes]:
        """Give a command its input; return exit status, output and errors. Raises SiteError as `run` does."""
        try:
            stdin, stdout, stderr = self.client.exec_command(command, timeout=seconds)
            stdin.write(data)
            stdin.channel.shutdown_write()
            out, err = stdout.read(), stderr.read()
            return stdout.channel.recv_exit_status(), out, err
        except _FAULTS as error:
            raise SiteError(f"{self.host}: no answer to a command ({_reason(error)}); try again") from error


@contextmanager
def connected(host: str) -> Iterator[Site]:
    """Yield a connection to an ssh alias.

    Raises
    ------
    SiteError
        No such host (stage "name"), no answer within 10 s ("port"), an unknown or changed host key ("host key"), or no
        key that it accepts ("login").
    """
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # its errors reach the user as ours
    with ExitStack() as opened:
        yield Site(host=host, client=_connect(host, opened, seen=frozenset()))


def _connect(host: str, opened: ExitStack, *, seen: frozenset[str], through: str = "") -> paramiko.SSHClient:
    options = _options(host)
    if through:
        options["proxyjump"] = [through]
    name, port, user = options["hostname"][0], int(options["port"][0]), options["user"][0]
    alias = options.get("hostkeyalias", [""])[0]
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    try:
        link = _link(host, options, opened, seen=seen)
        opened.callback(link.close)
        opened.callback(client.close)  # before what it goes through
        for line in options.get("userknownhostsfile", []) + options.get("globalknownhostsfile", []):
            for path in filter(Path.is_file, (Path(one).expanduser() for one in shlex.split(line))):
                client.load_system_host_keys(str(path))
        client.connect(
            alias or name,
            port=22 if alias else port,
            username=user,
            key_filename=_keys(options),  # type: ignore[arg-type]  # takes a list too
            sock=link,
            look_for_keys=False,
            allow_agent=options.get("identityagent", [""])[0] != "none",
            timeout=CONNECT_S,
            banner_timeout=CONNECT_S,
            auth_timeout=CONNECT_S,
            channel_timeout=CONNECT_S,
        )
    except _FAULTS as error:
        raise SiteError(f"{host}: {_advice(host, error)}", stage=_stage(error)) from error
    return client


def _link(
    host: str, options: dict[str, list[str]], opened: ExitStack, *, seen: frozenset[str]
) -> socket.socket | paramiko.Channel:
    """Return what the bytes to a host go through: a socket, a channel of its jump host, or its ProxyCommand."""
    name, port, user = options["hostname"][0], int(options["port"][0]), options["user"][0]
    jump = options.get("proxyjump", ["none"])[0]
    command = options.get("proxycommand", ["none"])[0]
    if jump != "none":
        before, _, last = jump.rpartition(",")
        if last in seen | {host}:
            raise SiteError(f"{host}: its ProxyJump leads back to {last}; correct ~/.ssh/config", stage="name")
        transport = _connect(last, opened, seen=seen | {host}, through=before).get_transport()
        assert transport is not None
        return transport.open_channel("direct-tcpip", (name, port), ("127.0.0.1", 0), timeout=CONNECT_S)
    if command != "none":
        for mark, value in (("%h", name), ("%p", str(port)), ("%r", user), ("%n", host), ("%%", "%")):
            command = command.replace(mark, value)
        ours, theirs = socket.socketpair()  # paramiko.ProxyCommand spins at the end of its command
        with theirs:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {command}"],  # as OpenSSH does
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
            )
        opened.enter_context(process)  # waits for its end
        opened.callback(process.terminate)
        return ours
    return socket.create_connection((name, port), timeout=CONNECT_S)


def _options(host: str) -> dict[str, list[str]]:
    """Return what OpenSSH makes of an alias: each option in lower case, with its values."""
    config = Path.home() / ".ssh/config"
    where = ["-F", str(config)] if config.is_file() else []
    target, _, port = host.rpartition(":") if host.count(":") == 1 else (host, "", "")  # user@host:port of a ProxyJump
    try:
        command = ["ssh", "-G", *where, *(["-p", port] if port else []), "--", target]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=CONNECT_S)
    except FileNotFoundError:
        raise SiteError(f"{host}: no ssh on this machine; need OpenSSH's client. Install it.", stage="name") from None
    except subprocess.TimeoutExpired:
        line = f"{host}: ssh -G {host} takes over {CONNECT_S:.0f} s; look at Match exec in {config}"
        raise SiteError(line, stage="name") from None
    if done.returncode:
        raise SiteError(f"{host}: {' '.join(done.stderr.split())}; correct {config}", stage="name")
    options: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        options.setdefault(key, []).append(value)
    return options


def _keys(options: dict[str, list[str]]) -> list[str]:
    return [str(path) for path in (Path(one).expanduser() for one in options.get("identityfile", [])) if path.is_file()]


def _advice(host: str, error: Exception) -> str:
    """Return what happened and what to do about it."""
    if isinstance(error, paramiko.BadHostKeyException):
        return "its host key is not the known one; ask the site why before you connect again"
    if isinstance(error, paramiko.PasswordRequiredException):
        return "its private key has a passphrase; put it into your agent with ssh-add"
    if isinstance(error, paramiko.AuthenticationException):
        return (
            f"refuses your keys; make 'ssh {host}' work without a password (IdentityFile in ~/.ssh/config, or an agent)"
        )
    if isinstance(error, paramiko.SSHException) and "not found in known_hosts" in str(error):
        return f"its host key is not known; connect once with 'ssh {host}' and compare the key with the site's"
    return f"cannot be reached ({_reason(error)}); make 'ssh {host}' work, then try again"


def _stage(error: Exception) -> str:
    """Return how far the connection came: name, port, host key, login."""
    if isinstance(error, socket.gaierror):
        return "name"
    if isinstance(error, paramiko.BadHostKeyException) or "not found in known_hosts" in str(error):
        return "host key"
    return "login" if isinstance(error, paramiko.AuthenticationException) else "port"


def _reason(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
