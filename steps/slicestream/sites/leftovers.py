"""What a killed run left on its sites, removed: its jobs, processes, containers, work folder and Kubernetes objects.

Everything of a run carries its id, and nothing else is touched.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import kubernetes

from slicestream.errors import SiteError
from slicestream.sites.cluster import REQUEST_S, Cluster, cluster
from slicestream.sites.runs import RUN_ID, Place, Run
from slicestream.sites.ssh import connected

LABEL = "slicestream/run"
PODS_GONE_S = 60.0
# Our own jobs only (--me), and until their processes are gone: none writes into a removed folder.
CANCEL_JOBS = r"""
jobs=$(squeue --me --noheader --name="slicestream-$run" --format=%i) || exit 1
for job in $jobs; do scancel "$job" && echo "job $job" || exit 1; done
waited=0
while [ -n "$jobs" ] && [ -n "$(squeue --me --noheader --name="slicestream-$run" --format=%i)" ]; do
    [ "$waited" -lt 60 ] || { echo "job $job still runs a minute after scancel" >&2; exit 1; }
    waited=$((waited + 1)); sleep 1
done
"""
# The script comes by stdin, so it does not find itself: its command line names no folder.
STOP_PROCESSES = r"""
ours() {
    for process in /proc/[0-9]*; do
        [ -O "$process" ] || continue
        case $(readlink "$process/cwd" 2>/dev/null)/ in "$folder"/*) echo "${process#/proc/}"; continue;; esac
        tr '\0' '\n' 2>/dev/null < "$process/cmdline" | grep -qF -- "$folder/" && echo "${process#/proc/}"
    done
}
if command -v podman > /dev/null; then
    for container in $(podman ps --all --quiet 2> /dev/null); do
        case $(podman inspect --format "{{.Config.WorkingDir}}" "$container" 2> /dev/null)/ in "$folder"/*)
            podman rm --force --time 1 "$container" > /dev/null && echo "container $container" || exit 1;;
        esac
    done
fi
found=$(ours)
if [ -n "$found" ]; then
    kill $found 2>/dev/null
    for second in 1 2 3 4 5; do [ -z "$(ours)" ] && break; sleep 1; done
    kill -9 $(ours) 2>/dev/null
    echo processes $found
fi
"""
REMOVE_FOLDER = r"""
if [ -L "$folder" ]; then echo "$folder is a link; look at it by hand" >&2; exit 1; fi
if [ -d "$folder" ]; then
    [ -O "$folder" ] || { echo "$folder belongs to somebody else" >&2; exit 1; }
    cd -- "$folder/.." && rm -rf --one-file-system -- "./$run" || exit 1
    echo "folder $folder"
fi
"""


def remove_leftovers(run: Run) -> list[str]:
    """Remove what a run left on its sites; return a line for each thing removed.

    Raises
    ------
    SiteError
        A site cannot be reached or refuses. What is on the other sites has been removed; the run stays registered.
    """
    return list(removals(run))


def removals(run: Run) -> Iterator[str]:
    """Yield a line for each thing when it has been removed. Raises as `remove_leftovers`, after the last."""
    failed: SiteError | None = None
    for place in _in_order(run.places):
        try:
            yield from _in_cluster(run, place) if place.kind == "kubernetes" else _behind_ssh(run, place)
        except SiteError as error:
            failed = failed or error
    if failed is not None:
        raise failed


def _in_order(places: tuple[Place, ...]) -> list[Place]:
    """Jobs before folders. A login node and its queue are two places with one folder, which is gone after the first."""
    queues = [place for place in places if place.kind == "slurm"]
    seen = {(place.host, place.folder) for place in queues}
    return queues + [place for place in places if place.kind != "slurm" and (place.host, place.folder) not in seen]


def _behind_ssh(run: Run, place: Place) -> Iterator[str]:
    folder = PurePosixPath(place.folder)
    safe = folder.is_absolute() and ".." not in folder.parts and len(folder.parts) > 2 and folder.name == run.id
    if not (safe and RUN_ID.fullmatch(run.id)):
        raise SiteError(f"{place.host}: {place.folder!r} is no work folder of run {run.id}; look at it by hand")
    script = (CANCEL_JOBS if place.kind == "slurm" else "") + STOP_PROCESSES + REMOVE_FOLDER
    with connected(place.host) as site:
        answer = site.run(f"run={run.id} folder={shlex.quote(str(folder))}\n{script}", seconds=180)
    for line in answer.out.splitlines():
        yield f"{place.host}: {line}"
    if answer.status:
        said = " ".join(answer.err.split()) or f"exit status {answer.status}"
        raise SiteError(
            f"{place.host}: cannot remove what run {run.id} left ({said}); then run slicestream clean again"
        )


def _in_cluster(run: Run, place: Place) -> Iterator[str]:
    with cluster(place.host, namespace=place.namespace) as ours:
        apps, core, batch = (
            getattr(kubernetes.client, name)(ours.api) for name in ("AppsV1Api", "CoreV1Api", "BatchV1Api")
        )
        kinds = (
            ("deployment", apps),
            ("stateful_set", apps),
            ("daemon_set", apps),
            ("job", batch),
            ("service", core),
            ("config_map", core),
            ("pod", core),
        )
        for kind, api in kinds:
            for name in _labelled(run, ours, kind=kind, api=api):
                getattr(api, f"delete_namespaced_{kind}")(
                    name, ours.namespace, propagation_policy="Background", _request_timeout=REQUEST_S
                )
                yield f"cluster {ours.name}: {kind.replace('_', '')} {name}"
        _wait_for_pods(run, ours, api=core)


def _labelled(run: Run, ours: Cluster, *, kind: str, api: Any) -> list[str]:
    """Return the names of a run's objects of one kind, without those that go with their owner."""
    listing = getattr(api, f"list_namespaced_{kind}")
    try:
        found = listing(ours.namespace, label_selector=f"{LABEL}={run.id}", _request_timeout=REQUEST_S).items
    except kubernetes.client.ApiException as error:
        if error.status == 403 and kind != "deployment":
            return []  # who may not look for this kind does not make it either
        raise
    return [one.metadata.name for one in found if not one.metadata.owner_references]


def _wait_for_pods(run: Run, ours: Cluster, *, api: Any) -> None:
    end = time.monotonic() + PODS_GONE_S
    while api.list_namespaced_pod(ours.namespace, label_selector=f"{LABEL}={run.id}", _request_timeout=REQUEST_S).items:
        if time.monotonic() > end:
            raise SiteError(
                f"cluster {ours.name}: pods of run {run.id} do not end; look at their node, then run slicestream clean"
            )
        time.sleep(0.5)
