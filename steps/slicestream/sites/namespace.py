"""What a run needs of a Kubernetes cluster: rights, namespace, room, images; nothing is made there."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import kubernetes
from kubernetes.utils.quantity import parse_quantity

from slicestream.sites.cluster import REQUEST_S, Cluster, refusal
from slicestream.sites.findings import Row, Rows, clock
from slicestream.sites.manifests import RESOURCES, Workers, amount

EXEC_SINCE = (1, 30)  # StreamFlow's exec speaks v5.channel.k8s.io alone
POD_SECURITY_SINCE = (1, 23)
RIGHTS = (
    ("apps", "deployments", ("create", "get", "list", "delete")),
    ("apps", "replicasets", ("list",)),
    ("", "pods", ("get", "list")),
    ("", "pods/exec", ("create", "get")),
)
LISTED_IMAGES = 50  # a node tells of so many of its images by default
ROLE = "environments/kubernetes/site.yaml"
UNSEEN = f"your rights do not show {{}} ({ROLE} has them)"


def answering(ours: Cluster) -> tuple[tuple[int, int], list[Row]]:
    """Ask for the version: what it is, and what the answer tells of address, credentials and clock."""
    asked = time.time()
    version, _, headers = kubernetes.client.VersionApi(ours.api).get_code_with_http_info(_request_timeout=REQUEST_S)
    # The header has whole seconds: half a second later is right on average.
    there = parsedate_to_datetime(headers["Date"]).timestamp() + 0.5
    number = (int(version.major), int(re.sub(r"\D.*", "", version.minor)))
    rows: list[Row] = [
        ("server", "ok", f"{ours.api.configuration.host} answers, its certificate is the known one"),
        ("version", "ok", f"Kubernetes {version.major}.{version.minor}"),
        clock(there - (asked + time.time()) / 2),
    ]
    if number < EXEC_SINCE:
        line = f"Kubernetes {version.major}.{version.minor}: before 1.30 StreamFlow runs nothing there"
        rows[1] = "version", "note", f"{line} unless its exec speaks v5.channel.k8s.io"
    return number, rows


def namespace(ours: Cluster) -> tuple[Mapping[str, str], Row]:
    """Look for the namespace; return its labels too."""
    try:
        found = kubernetes.client.CoreV1Api(ours.api).read_namespace(ours.namespace, _request_timeout=REQUEST_S)
    except kubernetes.client.ApiException as error:
        if error.status == 404:
            line = f"there is no namespace {ours.namespace}; name another, or ask the administrator to apply {ROLE}"
            return {}, ("namespace", "to do", line)
        if error.status == 403:
            return {}, ("namespace", "note", UNSEEN.format("the namespace"))
        raise
    return found.metadata.labels or {}, ("namespace", "ok", f"{ours.namespace} is there")


def rights(ours: Cluster) -> Row:
    """Ask for each right that a run uses."""
    missing = [right for group, resource, verbs in RIGHTS for right in _missing(ours, group, resource, verbs)]
    if missing:
        said = f"you may not {', '.join(missing)} in namespace {ours.namespace}"
        return "rights", "to do", f"{said}; ask its administrator for the role in {ROLE}"
    return "rights", "ok", f"you may make and run workers in namespace {ours.namespace}"


def _missing(ours: Cluster, group: str, resource: str, verbs: tuple[str, ...]) -> Iterator[str]:
    api = kubernetes.client.AuthorizationV1Api(ours.api)
    kind, _, sub = resource.partition("/")
    for verb in verbs:
        asked = {"group": group, "resource": kind, "subresource": sub, "verb": verb, "namespace": ours.namespace}
        review = {"spec": {"resourceAttributes": asked}}
        answer = api.create_self_subject_access_review(review, _request_timeout=REQUEST_S)
        if not answer.status.allowed:
            yield f"{verb} {resource}"


def manifest(ours: Cluster, name: str, documents: list[Any]) -> Row:
    """Ask the cluster to take a manifest without making anything; a field that it does not know comes not back."""
    for document in documents:
        try:
            made = kubernetes.utils.create_from_dict(ours.api, document, namespace=ours.namespace, dry_run="All")
        except kubernetes.utils.FailToCreateError as error:
            refused = [one for one in error.api_exceptions if one.status != 409]  # there is one of that name already
            if refused:
                said = f"{name}: the cluster {refusal(refused[0])}"
                return "manifest", "to do", f"{said}; correct it, or ask the cluster's administrator"
            continue
        lost = next(_lost(document, ours.api.sanitize_for_serialization(made[0])), None)
        if lost:
            return "manifest", "to do", f"{name}: the cluster does not know the field {lost}; correct its name or place"
    return "manifest", "ok", f"{name}: the cluster takes it in namespace {ours.namespace}"


def _lost(sent: Any, kept: Any, at: str = "") -> Iterator[str]:
    """Yield each field of what was sent that is not in what was kept; empty ones say nothing."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        for key, value in sent.items():
            if value and key not in kept:
                yield f"{at}.{key}".lstrip(".")
            elif value:
                yield from _lost(value, kept[key], f"{at}.{key}")
    elif isinstance(sent, list) and isinstance(kept, list):
        for number, (one, other) in enumerate(zip(sent, kept, strict=False)):
            yield from _lost(one, other, f"{at}[{number}]")


def quota(ours: Cluster, every: list[Workers]) -> Row:
    """Compare what is left of the namespace's quotas with what all workers ask for."""
    try:
        api = kubernetes.client.CoreV1Api(ours.api)
        found = api.list_namespaced_resource_quota(ours.namespace, _request_timeout=REQUEST_S).items
    except kubernetes.client.ApiException as error:
        if error.status != 403:
            raise
        return "quota", "note", UNSEEN.format("the quotas")
    for one in found:
        used = one.status.used or {}
        for key, hard in (one.status.hard or {}).items():
            asked, left = _asked(key, every), float(parse_quantity(hard) - parse_quantity(used.get(key, 0)))
            if asked and asked > left:
                said = (
                    f"the workers ask for {amount(key, asked)}, quota {one.metadata.name} has {amount(key, left)} left"
                )
                advice = "lower replicas or requests, or ask the administrator"
                return "quota", "to do", f"{said} of {hard} ({key}); {advice}"
    names = ", ".join(one.metadata.name for one in found)
    return "quota", "ok", f"{names} has room for the workers" if names else f"namespace {ours.namespace} has none"


def _asked(key: str, every: list[Workers]) -> float:
    kind, _, resource = key.partition(".") if "." in key else ("requests", "", key)
    if key == "pods":
        return float(sum(one.replicas for one in every))
    return sum(one.asks(kind, resource) * one.replicas for one in every) if kind in ("requests", "limits") else 0.0


def pod_security(ours: Cluster, version: tuple[int, int], labels: Mapping[str, str]) -> Row:
    """Say which pods the namespace takes."""
    level = labels.get("pod-security.kubernetes.io/enforce")
    if level and version < POD_SECURITY_SINCE:
        line = f"namespace {ours.namespace} asks for {level} pods, this Kubernetes (before 1.23) does not enforce it"
        return "pod security", "note", line
    if level:
        return "pod security", "ok", f"namespace {ours.namespace} takes {level} pods only"
    return "pod security", "note", f"namespace {ours.namespace} takes any pod; {ROLE} has a label against it"


def network_policy(ours: Cluster, every: list[Workers]) -> Row:
    """Say whether the workers may reach others."""
    try:
        api = kubernetes.client.NetworkingV1Api(ours.api)
        found = api.list_namespaced_network_policy(ours.namespace, _request_timeout=REQUEST_S).items
    except kubernetes.client.ApiException as error:
        if error.status != 403:
            raise
        return "network policy", "note", UNSEEN.format("the policies")
    over = [one.metadata.name for one in found if all(_selects(one.spec.pod_selector, its.labels) for its in every)]
    if over:
        return "network policy", "ok", f"{', '.join(over)} holds for the workers; a run needs no traffic of theirs"
    return "network policy", "note", f"none holds for the workers, they may reach anything; {ROLE} has one"


def _selects(selector: Any, labels: Mapping[str, str]) -> bool:
    wanted = selector.match_labels or {}
    return not selector.match_expressions and all(labels.get(key) == value for key, value in wanted.items())


def nodes(ours: Cluster, every: list[Workers]) -> Rows:
    """Look whether the nodes have room for the workers, and their images."""
    try:
        found = kubernetes.client.CoreV1Api(ours.api).list_node(_request_timeout=REQUEST_S).items
    except kubernetes.client.ApiException as error:
        if error.status != 403:
            raise
        yield "capacity", "note", UNSEEN.format("the nodes")
        return
    ready = [one for one in found if _takes_pods(one)]
    if not ready:
        states = ", ".join(
            f"{one.metadata.name} {'cordoned' if one.spec.unschedulable else 'not ready'}" for one in found
        )
        yield "capacity", "to do", f"no node takes pods ({states}); ask the cluster's administrator"
        return
    for one in every:
        yield _capacity(one, ready)
        for container in one.containers:
            yield _pulled(container, ready)


def _takes_pods(node: Any) -> bool:
    return not node.spec.unschedulable and any(
        one.type == "Ready" and one.status == "True" for one in node.status.conditions or []
    )


def _capacity(one: Workers, ready: list[Any]) -> Row:
    """Count how many workers the nodes hold where nobody else uses them."""
    holds = sum(min((_fitting(node, one, resource) for resource in RESOURCES), default=0) for node in ready)
    count = f"{len(ready)} node{'s' if len(ready) > 1 else ''}"
    if not holds:
        most = ", ".join(
            amount(resource, max(float(parse_quantity(node.status.allocatable.get(resource, 0))) for node in ready))
            for resource in RESOURCES
            if one.asks("requests", resource)
        )
        line = f"a worker of {one.name} asks for {one.request}, the largest of {count} has {most}; lower its requests"
        return "capacity", "to do", line
    if holds < one.replicas:
        said = f"{one.replicas} workers of {one.name} are wanted, {count} with room for {holds}"
        return "capacity", "to do", f"{said}; lower replicas or requests"
    most_said = f"{holds}" if holds < LISTED_IMAGES else f"over {LISTED_IMAGES}"
    return (
        "capacity",
        "ok",
        f"{one.replicas} workers of {one.name} ({one.request} each), {count} with room for {most_said}",
    )


def _fitting(node: Any, one: Workers, resource: str) -> int:
    asked = one.asks("requests", resource)
    there = float(parse_quantity(node.status.allocatable.get(resource, 0)))
    return math.floor(there / asked) if asked else 1_000_000


def _pulled(container: Mapping[str, Any], ready: list[Any]) -> Row:
    """Look for an image on the nodes; what is on none must be pulled, which only a run shows."""
    image, policy = str(container.get("image", "")), container.get("imagePullPolicy")
    having = [node for node in ready if any(image in (one.names or []) for one in node.status.images or [])]
    told_all = all(len(node.status.images or []) < LISTED_IMAGES for node in ready)
    if len(having) == len(ready) and policy != "Always":
        return "image", "ok", f"{image} is on every node that takes pods; of which build shows only in a run"
    if image.startswith("localhost/") and told_all:
        where = "no node" if not having else f"{len(having)} of {len(ready)} nodes"
        line = f"{image} is on {where} and can be pulled from nowhere; import it, or push it to a registry"
        return "image", "to do", f"{line}: containers/README.md"
    if policy == "Never" and told_all:
        return "image", "to do", f"{image} is not on every node, and imagePullPolicy is Never; import it there"
    return "image", "note", f"{image} must be pulled by the nodes; whether they may shows only in a run"
