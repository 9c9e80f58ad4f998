"""Kubernetes objects of one run: each named by it and labelled with it, so that runs never share workers."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from slicestream.streamflow_plugin.faults import SiteError

LABEL = "slicestream/run"
WORKLOADS = frozenset(("Deployment", "StatefulSet", "ReplicaSet", "DaemonSet", "Job"))
# Where an object is named by another: key -> kind. The first hold the name, the second a mapping with it.
NAMED = {
    "claimName": "PersistentVolumeClaim",
    "secretName": "Secret",
    "serviceAccountName": "ServiceAccount",
    "serviceName": "Service",
}
NAMED_IN = {
    "configMap": "ConfigMap",
    "configMapRef": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "secretRef": "Secret",
    "secretKeyRef": "Secret",
}


def read_manifests(files: list[str]) -> list[dict[str, Any]]:
    """Return the objects of manifest files, lists unpacked.

    Raises
    ------
    SiteError
        A file cannot be read.
    """
    objects: list[dict[str, Any]] = []
    for file in files:
        try:
            documents = list(yaml.safe_load_all(Path(file).read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError) as error:
            raise SiteError(f"{file}: {' '.join(str(error).split())}; need a Kubernetes manifest") from error
        for document in filter(None, documents):
            objects += document["items"] if document["kind"].endswith("List") else [document]
    return objects


def of_run(objects: list[dict[str, Any]], run: str, *, namespace: str) -> list[dict[str, Any]]:
    """Return the objects named and labelled by a run; references between them follow.

    Raises
    ------
    SiteError
        An object asks for another namespace than the deployment's.
    """
    names = {(one["kind"], one["metadata"]["name"]) for one in objects}
    made = []
    for one in map(deepcopy, objects):
        kind, metadata = one["kind"], one["metadata"]
        if metadata.get("namespace", namespace) != namespace:
            raise SiteError(
                f"{kind} {metadata['name']}: namespace {metadata['namespace']!r}, but the run uses {namespace!r}; take "
                "it out of the manifest, or name it as `namespace` of the deployment in streamflow.yml"
            )
        metadata["name"] = f"{metadata['name']}-{run}"
        for labelled in _labelled(kind, one):
            labelled[LABEL] = run
        _rename(one.get("spec"), names, run)
        made.append(one)
    return made


def workers(objects: list[dict[str, Any]]) -> int:
    """Return how many pods the objects ask for."""
    count = sum(int((one.get("spec") or {}).get("replicas", 1)) for one in objects if one["kind"] in WORKLOADS)
    return count + sum(one["kind"] == "Pod" for one in objects)


def _labelled(kind: str, one: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield one["metadata"].setdefault("labels", {})
    spec = one.get("spec") or {}
    if kind in WORKLOADS:
        yield spec["template"].setdefault("metadata", {}).setdefault("labels", {})
        if kind != "Job":  # the API server makes a Job's selector
            yield spec["selector"].setdefault("matchLabels", {})
    elif kind == "Service" and spec.get("selector"):
        yield spec["selector"]
    elif kind == "NetworkPolicy":
        yield spec.setdefault("podSelector", {}).setdefault("matchLabels", {})
    elif kind == "PodDisruptionBudget":
        yield spec["selector"].setdefault("matchLabels", {})


def _rename(node: Any, names: set[tuple[str, str]], run: str) -> None:
    if isinstance(node, list):
        for item in node:
            _rename(item, names, run)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key in NAMED and (NAMED[key], value) in names:
            node[key] = f"{value}-{run}"
        elif key in NAMED_IN and isinstance(value, dict) and (NAMED_IN[key], value.get("name")) in names:
            value["name"] = f"{value['name']}-{run}"
        else:
            _rename(value, names, run)
