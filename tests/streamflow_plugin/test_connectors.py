"""The connectors alone, on the real sites: what a whole run does not show."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from streamflow.core.deployment import ExecutionLocation

from bed import HPC, Bed
from slicestream.streamflow_plugin import session
from slicestream.streamflow_plugin.faults import SiteError
from slicestream.streamflow_plugin.kubernetes import SafeKubernetesConnector
from slicestream.streamflow_plugin.ssh import SafeSSHConnector
from streamflow_plugin.laptop import SCRATCH, WORKERS

Action = Callable[[Any, ExecutionLocation], Awaitable[Any]]


@pytest.fixture(params=["ssh", "kubernetes"])
def there(request: pytest.FixtureRequest, sites: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that does something with a connector and a location of it, then takes both away."""
    for name, value in {**sites.environment, "SLICESTREAM_RUN": secrets.token_hex(6)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(session, "_session", None)
    (tmp_path / "workers.yaml").write_text(yaml.safe_dump(WORKERS))

    async def cluster(action: Action) -> Any:
        connector = SafeKubernetesConnector(
            "cloud", str(tmp_path / "streamflow.yml"), files=[str(tmp_path / "workers.yaml")], timeout=40
        )
        await connector.deploy(external=False)
        try:
            (found,) = (await connector.get_available_locations("worker")).values()
            return await action(connector, found.location)
        finally:
            await _delete(connector)
            await connector.undeploy(external=False)

    async def login(action: Action) -> Any:
        connector = SafeSSHConnector("login", str(tmp_path / "streamflow.yml"), nodes=[HPC])
        try:
            return await action(connector, ExecutionLocation(name=HPC, deployment="login"))
        finally:
            await connector.undeploy(external=False)

    return lambda action: asyncio.run((cluster if request.param == "kubernetes" else login)(action))


async def _delete(connector: SafeKubernetesConnector) -> None:
    from kubernetes_asyncio.client import AppsV1Api

    name = f"plugin-test-{session.current().id}"
    await AppsV1Api(connector.client.api_client).delete_namespaced_deployment(name, connector.namespace)


def test_what_cannot_be_unpacked_there_is_an_error_soon_with_tars_own_words(there: Any, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"\0" * 20_000_000)
    start = time.monotonic()

    async def send(connector: Any, location: ExecutionLocation) -> None:
        await connector.copy_local_to_remote(str(big), "/proc/nowhere/big", [location])

    with pytest.raises(SiteError, match=r"tar: .*proc/nowhere"):
        there(send)
    assert time.monotonic() - start < 30


def test_a_missing_remote_file_is_an_error_and_leaves_nothing_here(there: Any, tmp_path: Path) -> None:
    async def fetch(connector: Any, location: ExecutionLocation) -> None:
        await connector.copy_remote_to_local("/tmp/not-there-at-all", str(tmp_path / "got"), location)

    with pytest.raises(SiteError, match="not-there-at-all"):
        there(fetch)
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize("there", ["ssh"], indirect=True)
def test_a_file_that_cannot_be_read_there_is_an_error(there: Any, tmp_path: Path) -> None:
    async def fetch(connector: Any, location: ExecutionLocation) -> None:
        await connector.copy_remote_to_local("/etc/shadow", str(tmp_path / "got"), location)

    with pytest.raises(SiteError, match="Permission denied"):
        there(fetch)
    assert not (tmp_path / "got").exists()


def test_a_command_gets_its_locations_environment_and_gives_its_exit_code(there: Any) -> None:
    async def ask(connector: Any, location: ExecutionLocation) -> Any:
        location.environment = {"COLOUR": "two words"}
        if not isinstance(connector, SafeKubernetesConnector):
            location.environment = {}
            return ("two words", 0), await connector.run(location, ["sh", "-c", "'exit 7'"], capture_output=True)
        return (
            await connector.run(location, ["echo", "$COLOUR"], capture_output=True),
            await connector.run(location, ["sh", "-c", "'exit 7'"], capture_output=True),
        )

    assert there(ask) == (("two words", 0), ("", 7))


def test_a_large_file_goes_there_and_back_whole(there: Any, tmp_path: Path) -> None:
    data = secrets.token_bytes(1 << 20) * 64 + b"end"
    (tmp_path / "sent").write_bytes(data)

    async def both(connector: Any, location: ExecutionLocation) -> None:
        room = "/work" if isinstance(connector, SafeKubernetesConnector) else SCRATCH
        path = f"{room}/plugin test {session.current().id}"
        await connector.copy_local_to_remote(str(tmp_path / "sent"), path, [location])
        await connector.copy_remote_to_local(path, str(tmp_path / "got"), location)
        await connector.run(location, ["rm", f"'{path}'"], capture_output=True)

    there(both)
    assert (tmp_path / "got").read_bytes() == data
