"""Faults for `slicestream check`, each made for real on the laptop's side or on the test bed, and undone after."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from hybrid import BED, ROOT, kubectl, lead_paths, on_site, shell, site_files

WORK = "/scratch/slicestream"
SIF = f"{WORK}/images/train.sif"
SITE = ROOT / "environments/kubernetes/site.yaml"
SSH = (BED / "home/.ssh/config", BED / "hpc/run-hpc/known_hosts", BED / "hpc/run-hpc/id_ed25519")


@dataclass(kw_only=True)
class Ground:
    """What a fault may change: files in an empty folder, the environment, the sites; `after` undoes in reverse."""

    room: Path
    patch: pytest.MonkeyPatch
    undo: ExitStack
    document: dict[str, Any] = field(default_factory=site_files)
    images: Path = ROOT / "containers/images"

    @property
    def train(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document["deployments"]["hpc"]["config"]["services"]["train"]
        return found

    @property
    def cloud(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document["deployments"]["cloud"]["config"]
        return found

    @property
    def login(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document["deployments"]["login"]
        return found

    @property
    def bindings(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.document["workflows"]["main"]["bindings"]
        return found

    def write(self) -> Path:
        """Write the StreamFlow file with whole paths."""
        settings = self.document["workflows"]["main"]["config"]
        settings |= {key: str(ROOT / settings[key]) for key in ("file", "settings")}
        path = self.room / "streamflow.yml"
        path.write_text(yaml.safe_dump(self.document))
        return path

    def on_site(self, do: str, undo: str) -> None:
        """Change the site as its root."""
        self.undo.callback(on_site, "sh", "-c", undo)
        on_site("sh", "-ec", do)

    def ssh(self, line: str = "", **replaced: str) -> None:
        """Give the user another ~/.ssh/config: a line in front, texts of the bed's replaced."""
        text = SSH[0].read_text()
        for number, name in ((1, "known"), (2, "key")):
            text = text.replace(str(SSH[number]), replaced.get(name, str(SSH[number])))
        (self.room / ".ssh").mkdir()
        (self.room / ".ssh/config").write_text(f"Host *\n  GlobalKnownHostsFile none\n  {line}\n{text}")
        self.patch.setenv("HOME", str(self.room))

    def key(self) -> Path:
        """Make a key that nobody knows."""
        shell("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.room / "key")
        return self.room / "key"

    def known_hosts(self, text: str) -> None:
        (self.room / "known").write_text(text)
        self.ssh(known=str(self.room / "known"))

    def kubeconfig(self, part: str, **change: Any) -> None:
        """Change the first cluster, user or context of the user's kubeconfig."""
        document = yaml.safe_load((BED / "home/.kube/config").read_text())
        inner = document[f"{part}s"][0][part]
        inner |= change
        for name in [name for name, value in change.items() if value is None]:
            del inner[name]
        (self.room / "kubeconfig").write_text(yaml.safe_dump(document))
        self.patch.setenv("KUBECONFIG", str(self.room / "kubeconfig"))

    def manifest(self, change: Callable[[dict[str, Any]], object]) -> None:
        document = yaml.safe_load((ROOT / "environments/kubernetes/workers.yaml").read_text())
        change(document)
        (self.room / "workers.yaml").write_text(yaml.safe_dump(document))
        self.cloud["files"] = ["workers.yaml"]

    def cluster(self, *do: str, undo: tuple[str, ...]) -> None:
        """Change the cluster as its administrator."""
        self.undo.callback(kubectl, *undo)
        kubectl(*do)


def another_host_key(ground: Ground) -> None:
    address, kind, _ = SSH[1].read_text().split()[:3]
    ground.key()
    ground.known_hosts(f"{address} {kind} {(ground.room / 'key.pub').read_text().split()[1]}\n")


def small_disk(ground: Ground) -> None:
    ground.on_site(f"mount -t tmpfs -o size=2m,mode=777 tmpfs {WORK}", f"umount -l {WORK}")


def short_files(ground: Ground) -> None:
    """Who logs in may write files of half a MB, as some quotas have it."""
    listener = "$(pgrep -o -x sshd)"
    ground.on_site(f"prlimit --pid {listener} --fsize=524288:", f"prlimit --pid {listener} --fsize=unlimited:")


def hidden(path: str) -> Callable[[Ground], None]:
    """A file of the site that is not there for a while."""
    return lambda ground: ground.on_site(f"mv {path} {path}.away", f"mv {path}.away {path}")


def no_runtime(ground: Ground) -> None:
    programs = "/usr/bin/apptainer /usr/bin/podman"
    ground.on_site(
        f"for one in {programs}; do mount --bind /dev/null $one; done", f"for one in {programs}; do umount $one; done"
    )


def another_image(ground: Ground) -> None:
    ground.on_site(f"mv {SIF} {SIF}.away; cp {WORK}/images/busybox.sif {SIF}", f"mv {SIF}.away {SIF}")


def newer_image_here(ground: Ground) -> None:
    """An archive with the names of the train image, of a build that the site has not."""
    image = "localhost/slicestream/train:0.1.0"
    config = {"config": {"Env": [f"SLICESTREAM_IMAGE={image}@build:{'0' * 64}"]}}
    parts = {"manifest.json": [{"Config": "config.json", "RepoTags": [image], "Layers": []}], "config.json": config}
    with tarfile.open(ground.room / "train.tar", "w") as tar:
        for name, content in parts.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    ground.images = ground.room


def no_gpu_asked(ground: Ground) -> None:
    ground.train.pop("gpus")
    hidden(f"{WORK}/site.env")(ground)


def no_gpu(ground: Ground) -> None:
    """Training on a host without a queue, which has no GPU that computes and no site.env that says so."""
    metal = lead_paths(ROOT / "environments/occam/streamflow.yml")["deployments"]["metal"]
    ground.document["deployments"]["metal"] = metal
    ground.bindings[0]["target"]["deployment"] = "metal"
    hidden(f"{WORK}/site.env")(ground)


def drained(ground: Ground) -> None:
    ground.on_site(
        "scontrol update nodename=gpu01 state=drain reason='new disks'", "scontrol update nodename=gpu01 state=resume"
    )


def partition_down(ground: Ground) -> None:
    ground.on_site("scontrol update partition=gpu state=down", "scontrol update partition=gpu state=up")


def busy(ground: Ground) -> None:
    job = "sbatch --partition=gpu --gpus=1 --time=00:30:00 --job-name=busy --output=/dev/null --wrap='sleep 300'"
    ground.on_site(f"cd / && {job}; until squeue -h -n busy -t R | grep -q .; do sleep 0.1; done", "scancel -n busy")


def without_exec(ground: Ground) -> None:
    every = list(yaml.safe_load_all(SITE.read_text()))
    role = next(one for one in every if one["kind"] == "Role")
    role["rules"] = [rule for rule in role["rules"] if "pods/exec" not in rule["resources"]]
    (ground.room / "role.yaml").write_text(yaml.safe_dump(role))
    ground.cluster("apply", "-f", str(ground.room / "role.yaml"), undo=("apply", "-f", str(SITE)))


def without_policy(ground: Ground) -> None:
    ground.cluster("delete", "networkpolicy", "no-traffic", undo=("apply", "-f", str(SITE)))


def without_nodes(ground: Ground) -> None:
    ground.cluster("delete", "clusterrolebinding", "slicestream-check", undo=("apply", "-f", str(SITE)))


def small_quota(ground: Ground) -> None:
    ground.cluster("create", "quota", "cores", "--hard=requests.cpu=500m", undo=("delete", "quota", "cores"))
    end = time.monotonic() + 10
    while not kubectl("get", "quota", "cores", "-o", "jsonpath={.status.hard}"):
        assert time.monotonic() < end, "the quota never came to be"
        time.sleep(0.1)


def asks(**requests: str) -> Callable[[Ground], None]:
    def change(one: dict[str, Any]) -> None:
        one["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": requests}

    return lambda ground: ground.manifest(change)


def image(name: str) -> Callable[[Ground], None]:
    return lambda ground: ground.manifest(
        lambda one: one["spec"]["template"]["spec"]["containers"][0].update(image=name)
    )


def another_authority(ground: Ground) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other", "-days", "2"]
    files = ["-keyout", str(ground.room / "ca.key"), "-out", str(ground.room / "ca.crt")]
    subprocess.run([*command, *files], check=True, capture_output=True)
    ground.kubeconfig(
        "cluster", **{"certificate-authority-data": None, "certificate-authority": str(ground.room / "ca.crt")}
    )


def wrong_token(ground: Ground) -> None:
    ground.kubeconfig("user", **{"client-certificate-data": None, "client-key-data": None, "token": "expired"})
