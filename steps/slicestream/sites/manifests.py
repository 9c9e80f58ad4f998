"""What the manifests of a kubernetes deployment ask for: pods, their containers, images and requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes.utils.quantity import parse_quantity

RESOURCES = ("cpu", "memory", "ephemeral-storage")


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """The pods of one object of a manifest. Requests and limits are sums over a pod's containers."""

    name: str
    replicas: int
    labels: Mapping[str, str]
    containers: tuple[Mapping[str, Any], ...]

    def asks(self, kind: str, resource: str) -> float:
        """Return what one pod `requests` or `limits` of a resource, in its unit (cores, bytes)."""
        total = 0.0
        for container in self.containers:
            resources = container.get("resources") or {}
            given = resources.get(kind) or {}
            if kind == "requests":  # the limit stands for a request that is not given
                given = {**(resources.get("limits") or {}), **given}
            total += float(parse_quantity(given.get(resource, 0)))
        return total

    @property
    def request(self) -> str:
        """What one pod requests, to be read: `0.5 cpu, 1.0 GiB memory`."""
        return ", ".join(amount(one, self.asks("requests", one)) for one in RESOURCES if self.asks("requests", one))


def workers(paths: list[Path]) -> Iterator[Workers]:
    """Yield the pods that manifests make; what makes no pods is passed over. Raises OSError, ValueError."""
    for path in paths:
        for one in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            spec = (one or {}).get("spec") or {}
            pod = spec.get("template") if "template" in spec else one if (one or {}).get("kind") == "Pod" else None
            if pod:
                yield Workers(
                    name=str((one.get("metadata") or {}).get("name", "")),
                    replicas=int(spec.get("replicas", 1)),
                    labels=(pod.get("metadata") or {}).get("labels") or {},
                    containers=tuple((pod.get("spec") or {}).get("containers") or ()),
                )


def amount(resource: str, value: float) -> str:
    """Return an amount of a resource, to be read."""
    name = resource.rpartition(".")[2]  # limits.cpu of a quota
    return f"{value:g} {name}" if name in ("cpu", "pods") else f"{value / 2**30:.1f} GiB {name}"
