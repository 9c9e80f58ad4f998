"""The sites that tests run on: the test bed of this machine, or, with SITES=own, those of your own configuration."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

HPC, OCCAM = "slicestream-hpc", "slicestream-occam"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bed:
    """How to reach the sites: HOME holds `.ssh/config` with both aliases."""

    home: Path
    kubeconfig: Path
    hpc: str = HPC
    occam: str = OCCAM

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs so as to use them."""
        return {"HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig)}

    def ssh(self, command: str, *, host: str = HPC) -> str:
        """Return what a command prints on the site, by OpenSSH's own client."""
        return _ssh(self.home, host, command)


def need_bed() -> Bed:
    """Return the sites; skip the test, with the reason, where they are not up. In CI that is a failure."""
    found = _look()
    if isinstance(found, Bed):
        return found
    if os.environ.get("CI"):
        pytest.fail(found)
    pytest.skip(found)


@cache
def _look() -> Bed | str:
    if os.environ.get("SITES") == "own":
        home = Path.home()
        kubeconfig = Path(os.environ.get("KUBECONFIG") or home / ".kube/config")
        advice = "SITES=own: make `ssh slicestream-hpc` and kubectl work"
    else:
        cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        home = Path(os.environ.get("TESTBED") or cache_home / "slicestream/testbed") / "home"
        kubeconfig = home / ".kube/config"
        advice = "make sites brings them up"
    if not (home / ".ssh/config").is_file() or not kubeconfig.is_file():
        return f"no sites configured under {home}; {advice}"
    bed = Bed(home=home, kubeconfig=kubeconfig)
    try:
        for host in (HPC, OCCAM):
            _ssh(home, host, "true")
    except (subprocess.SubprocessError, OSError) as error:
        return f"the HPC site does not answer ({error}); {advice}"
    return _cluster_answers(kubeconfig) or bed


def _cluster_answers(kubeconfig: Path) -> str:
    import kubernetes

    settings = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(str(kubeconfig), client_configuration=settings)
    settings.retries = False
    with kubernetes.client.ApiClient(settings) as api:
        try:
            kubernetes.client.VersionApi(api).get_code(_request_timeout=5)
        except Exception as error:  # whatever it is, the tests cannot run
            return f"the cluster does not answer ({' '.join(str(error).split())[:200]}); make sites brings it up"
    return ""


def _ssh(home: Path, host: str, command: str) -> str:
    done = subprocess.run(
        ["ssh", "-F", home / ".ssh/config", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", host, command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout
