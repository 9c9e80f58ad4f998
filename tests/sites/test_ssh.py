"""An ssh alias means what OpenSSH says it means; a site that does not answer is named in time."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bed import HPC, OCCAM, Bed, need_bed
from slicestream.errors import SiteError
from slicestream.sites import ssh
from slicestream.sites.ssh import connected

Configure = Callable[[str], None]


@pytest.fixture
def bed() -> Bed:
    return need_bed()


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Give the user another ~/.ssh/config."""
    (tmp_path / ".ssh").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))

    def write(text: str) -> None:
        (tmp_path / ".ssh/config").write_text(text)

    return write


def said_by(host: str, script: str = "echo reached") -> str:
    with connected(host) as site:
        answer = site.run(script)
        assert answer.status == 0, answer
        return answer.out


def test_included_files_and_patterns_count(bed: Bed, configure: Configure) -> None:
    configure(f"Host slice*\n  ServerAliveInterval 5\nInclude {bed.home}/.ssh/config\n")
    assert said_by(HPC) == "reached\n"


def test_a_jump_host_is_gone_through(bed: Bed, configure: Configure) -> None:
    configure(f"Include {bed.home}/.ssh/config\nHost {HPC}\n  ProxyJump {OCCAM}\n")
    with connected(HPC) as site:
        peer = site.run("echo ${SSH_CONNECTION%% *}").out
    with connected(OCCAM) as site:
        assert site.run("echo ${SSH_CONNECTION#* * }").out.split()[0] == peer.strip(), "it comes from the jump host"


def test_a_proxy_command_is_gone_through(bed: Bed, configure: Configure) -> None:
    config = f"{bed.home}/.ssh/config"
    configure(f"Host {HPC}\n  ProxyCommand ssh -F {config} -W %h:%p {OCCAM}\nInclude {config}\n")
    assert said_by(HPC) == "reached\n"


def test_a_proxy_command_that_fails_is_a_site_that_cannot_be_reached(configure: Configure) -> None:
    configure("Host a\n  ProxyCommand false\n")
    with pytest.raises(SiteError, match=r"a: cannot be reached \("):
        said_by("a")


def test_a_jump_host_that_leads_to_itself_is_refused(configure: Configure) -> None:
    configure("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    with pytest.raises(SiteError, match="its ProxyJump leads back to a; correct"):
        said_by("a")


def test_a_key_that_the_site_does_not_know_is_named(bed: Bed, configure: Configure, tmp_path: Path) -> None:
    configure(f"Host {HPC}\n  User nobody-of-this-name\nInclude {bed.home}/.ssh/config\n")
    with pytest.raises(SiteError, match=rf"{HPC}: refuses your keys; make 'ssh {HPC}' work without a password"):
        said_by(HPC)


def test_a_script_is_run_whole_with_its_exit_status(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(bed.home))
    with connected(HPC) as site:
        answer = site.run("cat; echo 'è'; echo no >&2; exit 3")
    assert (answer.status, answer.out, answer.err) == (3, "è\n", "no\n")


def test_a_command_that_does_not_end_is_given_up(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(bed.home))
    with connected(HPC) as site, pytest.raises(SiteError, match=f"{HPC}: no answer to a command"):
        site.run("sleep 20", seconds=1)


def test_a_server_that_says_nothing_is_given_up(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "CONNECT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        configure(f"Host mute\n  HostName 127.0.0.1\n  Port {server.getsockname()[1]}\n")
        started = time.monotonic()
        with pytest.raises(SiteError, match=r"mute: cannot be reached \("):
            said_by("mute")
        assert time.monotonic() - started < 10


def test_a_broken_configuration_is_named(configure: Configure, tmp_path: Path) -> None:
    configure("Host a\n  Porrt 22\n")
    with pytest.raises(SiteError, match=r"a: .*Bad configuration option: porrt.* correct .*/\.ssh/config"):
        said_by("a")


def test_an_alias_is_never_taken_for_an_option(configure: Configure) -> None:
    configure("")
    with pytest.raises(SiteError):
        said_by("-oProxyCommand=touch /tmp/owned")
    assert not Path("/tmp/owned").exists()
