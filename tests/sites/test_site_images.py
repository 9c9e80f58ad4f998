"""Our images are known by their build, manifests by what they ask for."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from slicestream.errors import WorkflowError
from slicestream.sites.images import divided, folder_of, local_builds, nameless_tag
from slicestream.sites.manifests import amount, workers
from slicestream.sites.namespace import _asked, _lost

MANIFEST = """
kind: Service
metadata: {name: nothing}
---
kind: Deployment
metadata: {name: two}
spec:
  replicas: 2
  template:
    metadata: {labels: {a: b}}
    spec:
      containers:
        - {name: one, resources: {requests: {cpu: 500m, memory: 1Gi}, limits: {cpu: "2", ephemeral-storage: 2Gi}}}
        - {name: other}
---
kind: Pod
metadata: {name: alone}
spec: {containers: [{name: c, resources: {limits: {memory: 512Mi}}}]}
"""


def archive(path: Path, variables: list[str]) -> None:
    parts = {"manifest.json": [{"Config": "c.json"}], "c.json": {"config": {"Env": variables}}}
    with tarfile.open(path, "w") as tar:
        for name, content in parts.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("localhost/slicestream/train:0.1.0", "localhost/slicestream/train"),
        ("registry.example.org:5000/a/b", "registry.example.org:5000/a/b"),
        ("registry.example.org:5000/a/b:1", "registry.example.org:5000/a/b"),
        ("train", "train"),
    ],
)
def test_an_image_is_named_without_its_tag(image: str, name: str) -> None:
    assert nameless_tag(image) == name
    assert divided(f"{image}@build:0a1b\n") == (name, "0a1b")


def test_builds_are_read_from_the_archives_and_others_are_passed_over(tmp_path: Path) -> None:
    archive(tmp_path / "train.tar", ["A=b", "SLICESTREAM_IMAGE=localhost/slicestream/train:0.1.0@build:0a1b"])
    archive(tmp_path / "other.tar", ["A=b"])
    assert local_builds(tmp_path) == {"localhost/slicestream/train": (tmp_path / "train.tar", "0a1b")}
    assert local_builds(None) == {}


def test_a_damaged_archive_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "train.tar").write_bytes(b"half an archive")
    with pytest.raises(WorkflowError, match=r"train\.tar: not a docker-archive \(.*\); make it again with make images"):
        local_builds(tmp_path)


def test_the_images_of_a_file_are_the_nearest_above_it(tmp_path: Path) -> None:
    assert folder_of(tmp_path / "a/b/streamflow.yml") is None
    (tmp_path / "containers/images").mkdir(parents=True)
    assert folder_of(tmp_path / "a/b/streamflow.yml") == tmp_path / "containers/images"


def test_requests_add_up_over_containers_and_limits_stand_for_them(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(MANIFEST)
    two, alone = workers([tmp_path / "m.yaml"])
    assert (two.name, two.replicas, two.labels, alone.name, alone.replicas) == ("two", 2, {"a": "b"}, "alone", 1)
    assert [two.asks("requests", one) for one in ("cpu", "memory", "ephemeral-storage")] == [0.5, 2**30, 2 * 2**30]
    assert two.asks("limits", "cpu") == 2
    assert two.request == "0.5 cpu, 1.0 GiB memory, 2.0 GiB ephemeral-storage"
    assert _asked("requests.cpu", [two, alone]) == 1
    assert _asked("memory", [two, alone]) == 2 * 2**30 + 2**29
    assert _asked("pods", [two, alone]) == 3
    assert _asked("count/deployments.apps", [two, alone]) == 0, "not a matter of requests"
    assert amount("limits.memory", 2**29) == "0.5 GiB memory"


def test_a_field_that_does_not_come_back_is_found_and_an_empty_one_says_nothing() -> None:
    sent = {"spec": {"replica": 2, "paused": False, "list": [{"a": 1, "b": 2}]}}
    kept = {"spec": {"list": [{"a": 1}], "more": 3}}
    assert list(_lost(sent, kept)) == ["spec.replica", "spec.list[0].b"]
