"""Read a docker-archive and run it with crun, as Kubernetes would: read-only root, no capability, no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import pytest

IMAGES = Path(os.environ.get("OUT", Path(__file__).parents[2] / "containers" / "images"))


def cannot(why: str) -> NoReturn:
    """Skip the test; in CI, fail."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@dataclass(frozen=True)
class Image:
    path: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return self._json("manifest.json")[0]

    @cached_property
    def description(self) -> dict[str, Any]:
        return self._json(self.manifest["Config"])

    @property
    def config(self) -> dict[str, Any]:
        return self.description["config"]

    @property
    def layers(self) -> list[str]:
        return self.description["rootfs"]["diff_ids"]

    def _json(self, name: str) -> Any:
        with tarfile.open(self.path) as archive:
            return json.load(archive.extractfile(name))

    def unpack(self, root: Path) -> None:
        root.mkdir()
        for layer in self.manifest["Layers"]:
            with subprocess.Popen(["tar", "xOf", self.path, layer], stdout=subprocess.PIPE) as content:
                subprocess.run(["tar", "xpf", "-", "-C", root], stdin=content.stdout, check=True)
            assert content.returncode == 0
        assert not list(root.rglob(".wh.*")), "a layer removes files: unpack it with care"


def image(name: str) -> Image:
    path = IMAGES / f"{name}.tar"
    if not path.exists():
        cannot(f"no {path}; make images")
    return Image(path)


@dataclass(frozen=True)
class Container:
    """An unpacked image. `work` is mounted at its own path, writable; /tmp is a tmpfs; all else is read-only."""

    image: Image
    bundle: Path

    def run(self, *command: str | Path, work: Path | None = None, uid: int = 10001) -> subprocess.CompletedProcess[str]:
        mounts = [_mount("/proc", "proc"), _mount("/dev", "tmpfs"), _mount("/tmp", "tmpfs")]
        if work:
            for path in (work, *work.rglob("*")):
                os.chown(path, uid, uid)
            mounts.append(_mount(str(work), "bind", "bind", source=str(work)))
        process = {
            "user": {"uid": uid, "gid": uid},
            "args": [str(word) for word in command],
            "env": self.image.config["Env"],
            "cwd": str(work or self.image.config["WorkingDir"]),
            "capabilities": {},
            "noNewPrivileges": True,
        }
        kinds = ("pid", "mount", "ipc", "uts", "network")
        specification = {
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs", "readonly": True},
            "process": process,
            "mounts": mounts,
            "linux": {"namespaces": [{"type": kind} for kind in kinds]},
        }
        (self.bundle / "config.json").write_text(json.dumps(specification))
        # crun 1.8 refuses a machine with both cgroup versions: it sees only the first, in a mount namespace of its own
        script = "umount /sys/fs/cgroup/unified 2>/dev/null; "
        script += 'exec crun --cgroup-manager=disabled --root "$0/state" run -b "$0" "$1"'
        name = f"slicestream-test-{os.getpid()}"
        words = ["unshare", "-m", "sh", "-c", script, self.bundle, name]
        return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def _mount(destination: str, kind: str, *options: str, source: str | None = None) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source or kind, "options": list(options)}


def start(name: str, bundle: Path) -> Container:
    found = image(name)
    if os.geteuid() != 0 or not shutil.which("crun"):
        cannot("running an image needs root and crun")
    found.unpack(bundle / "rootfs")
    return Container(found, bundle)
