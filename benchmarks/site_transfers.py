"""One large file to the sites and back: StreamFlow with our plugin beside scp and kubectl cp, taking turns.

A CWL step that copies the file runs on each site; the plugin's record says how long each way took, checksums included.
Needs the sites (`make sites`). Printed: MB/s, median of the rounds, and the ratio to the peer.

    python benchmarks/site_transfers.py --megabytes 1000 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
BED = Path(os.environ.get("TESTBED") or Path.home() / ".cache/slicestream/testbed")
ENVIRONMENT = os.environ | {"HOME": str(BED / "home"), "KUBECONFIG": str(BED / "home/.kube/config")}
KUBECTL = [BED / "kubernetes/root/usr/bin/kubectl"]
SSH = ["-q", "-F", BED / "home/.ssh/config"]
REMOTE = "/scratch/slicestream/benchmark.bin"
SITES = {"hpc": ("login", "hpc"), "kubernetes": ("cloud", "cloud")}


def timed(*command: str | Path) -> float:
    """Return the seconds that a command takes."""
    began = time.monotonic()
    subprocess.run(command, check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def streamflow(folder: Path, original: Path, site: str) -> tuple[float, float]:
    """Return the seconds of the way there and of the way back."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "streamflow.yml").read_text())
    (folder / "job.json").write_text(json.dumps({"original": {"class": "File", "path": str(original)}}))
    workflow = document["workflows"]["main"]
    workflow["config"] |= {"file": str(ROOT / "benchmarks/copy.cwl"), "settings": str(folder / "job.json")}
    deployments = document["deployments"]
    deployments["cloud"]["config"]["files"] = [str(ROOT / "environments/kubernetes/workers.yaml")]
    target = {"deployment": SITES[site][0]} | ({"service": "infer"} if site == "kubernetes" else {})
    workflow["bindings"] = [{"step": "/copy", "target": target}]
    document["deployments"] = {target["deployment"]: deployments[target["deployment"]]}
    (folder / "streamflow.yml").write_text(yaml.safe_dump(document))
    record = folder / "record.json"
    command = ["streamflow", "run", "--quiet", "--outdir", folder / "out", folder / "streamflow.yml"]
    subprocess.run(
        command, check=True, env=ENVIRONMENT | {"SLICESTREAM_RECORD": str(record)}, stdout=subprocess.DEVNULL
    )
    links = {link["destination"]: link["seconds"] for link in json.loads(record.read_text())["transfers"]}
    there = links.pop(target["deployment"])
    (back,) = links.values()
    return there, back


def scp(folder: Path, original: Path) -> tuple[float, float]:
    """Return the seconds of the way there and of the way back."""
    there = timed("scp", *SSH, original, f"slicestream-hpc:{REMOTE}")
    back = timed("scp", *SSH, f"slicestream-hpc:{REMOTE}", folder / "back")
    timed("ssh", *SSH, "slicestream-hpc", "rm", REMOTE)
    return there, back


def kubectl_cp(folder: Path, original: Path) -> tuple[float, float]:
    """Return the seconds of the way there and of the way back, with a worker of our manifest."""
    manifest = ROOT / "environments/kubernetes/workers.yaml"
    timed(*KUBECTL, "apply", "-f", manifest)
    try:
        while not (pod := running_pod()):
            time.sleep(0.5)
        there = timed(*KUBECTL, "cp", original, f"{pod}:/work/benchmark.bin", "-c", "infer")
        back = timed(*KUBECTL, "cp", f"{pod}:/work/benchmark.bin", folder / "back", "-c", "infer")
    finally:
        timed(*KUBECTL, "delete", "-f", manifest, "--wait=false")
    return there, back


def running_pod() -> str:
    """Return the name of a running worker, empty where there is none yet."""
    found = subprocess.run(
        [*KUBECTL, "get", "pods", "--field-selector=status.phase=Running", "-o", "jsonpath={.items[0].metadata.name}"],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return found.stdout


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    os.environ["PATH"] = ENVIRONMENT["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    seconds: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        original = folder / "original"
        original.write_bytes(os.urandom(10**6) * args.megabytes)
        for _ in range(args.rounds):
            for site, peer, call in (("hpc", "scp", scp), ("kubernetes", "kubectl cp", kubectl_cp)):
                seconds.setdefault(f"streamflow {site}", []).append(streamflow(folder, original, site))
                seconds.setdefault(peer, []).append(call(folder, original))
    rates = {who: [args.megabytes / median(way) for way in zip(*times, strict=True)] for who, times in seconds.items()}
    print(f"{args.megabytes} MB, median of {args.rounds}: MB/s there, back")
    for ours, peer in (("streamflow hpc", "scp"), ("streamflow kubernetes", "kubectl cp")):
        for who in (ours, peer):
            print(f"  {who:22} {rates[who][0]:6.0f} {rates[who][1]:6.0f}")
        print(f"  {'ratio':22} {rates[ours][0] / rates[peer][0]:6.2f} {rates[ours][1] / rates[peer][1]:6.2f}")


if __name__ == "__main__":
    main()
