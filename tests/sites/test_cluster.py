"""A cluster that cannot be used is named, with what to do, and in time."""

from __future__ import annotations

import json
import time
from pathlib import Path

import kubernetes
import pytest

from bed import need_bed
from slicestream.errors import SiteError
from slicestream.sites.cluster import REQUEST_S, cluster, resolved


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubeconfig that leads to a port where nobody listens; two contexts, the second is the current one."""
    contexts = [
        {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "first"}},
        {"name": "two", "context": {"cluster": "c", "user": "u"}},
    ]
    clusters = [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}]
    config = {
        "contexts": contexts,
        "clusters": clusters,
        "users": [{"name": "u", "user": {}}],
        "current-context": "two",
    }
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))


@pytest.mark.usefixtures("nowhere")
def test_the_namespace_is_the_named_one_else_the_contexts_else_default() -> None:
    with cluster("one") as ours:
        assert (ours.name, ours.namespace) == ("one", "first")
    with cluster("one", namespace="mine") as ours:
        assert ours.namespace == "mine"
    assert resolved("", "") == ("two", "default")


@pytest.mark.usefixtures("nowhere")
def test_a_cluster_that_does_not_answer_is_named_at_once() -> None:
    started = time.monotonic()
    line = r"cluster two: cannot be reached \(.*Connection refused.*\); make 'kubectl get pods' work"
    with pytest.raises(SiteError, match=line), cluster("") as ours:
        kubernetes.client.VersionApi(ours.api).get_code(_request_timeout=REQUEST_S)
    assert time.monotonic() - started < 5


@pytest.mark.usefixtures("nowhere")
def test_an_unknown_context_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SiteError, match="kubeconfig has no context 'three'; it has: one, two"), cluster("three"):
        pass


def test_what_the_cluster_forbids_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(need_bed().kubeconfig))
    refused = pytest.raises(SiteError, match=r"cluster .*: answers 403: secrets is forbidden: .* cannot list resource")
    with refused as said, cluster("", namespace="kube-system") as ours:
        kubernetes.client.CoreV1Api(ours.api).list_namespaced_secret(ours.namespace, _request_timeout=REQUEST_S)
    assert "\n" not in str(said.value)
