"""Before a run: does each deployment of a StreamFlow file have what the run will ask of it?"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import kubernetes

from slicestream.errors import SiteError
from slicestream.sites.cluster import REQUEST_S, Cluster, cluster, refusal
from slicestream.sites.deployments import WORK_FOLDER, wrapped
from slicestream.sites.ssh import Site, connected

NEEDED_GB = 5.0  # a training set, a model and their copies
EXEC_SINCE = (1, 30)  # StreamFlow's exec speaks v5.channel.k8s.io alone
RIGHTS = (
    ("apps", "deployments", ("create", "get", "list", "delete")),
    ("apps", "replicasets", ("list",)),
    ("", "pods", ("get", "list")),
    ("", "pods/exec", ("create", "get")),
)
WRITABLE = r"""
probe=$(mktemp "$folder/.slicestream-XXXXXX") && rm -f "$probe" || exit 1
df -Pk "$folder" | awk 'NR == 2 {print $4}'
"""
IMAGE = r"""
[ ! -f "$folder/site.env" ] || . "$folder/site.env" > /dev/null
if [ -n "$sif" ] && [ -f "$sif" ] && command -v apptainer > /dev/null; then echo "$sif"
elif [ -n "$tag" ] && command -v podman > /dev/null && podman image exists "$tag"; then echo "$tag"
else exit 1; fi
"""

Verdict = Literal["ok", "note", "to do"]
Looked = Iterator[tuple[Verdict, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that was looked at; "to do" if a run would stop there."""

    deployment: str
    verdict: Verdict
    line: str

    def __str__(self) -> str:
        return f"{self.deployment}: {self.verdict}: {self.line}"


def findings(config: Mapping[str, Any], *, where: Path) -> Iterator[Finding]:
    """Yield what is found about every deployment of a valid StreamFlow file that is not `local`."""
    deployments = config.get("deployments", {})
    for name, deployment in deployments.items():
        look = {"ssh": _ssh, "slurm": _ssh, "kubernetes": _kubernetes}.get(deployment["type"])
        if look is None:
            if deployment["type"] != "local":
                yield Finding(deployment=name, verdict="note", line=f"type {deployment['type']} is not looked at")
            continue
        try:
            for verdict, line in look(deployment, deployments, where.parent):
                yield Finding(deployment=name, verdict=verdict, line=line)
        except SiteError as error:
            yield Finding(deployment=name, verdict="to do", line=str(error))


def _ssh(deployment: Mapping[str, Any], deployments: Mapping[str, Any], here: Path) -> Looked:
    chain = [deployment]
    while inner := wrapped(chain[-1]):
        chain.append(deployments[inner])
    folder = next((one["workdir"] for one in chain if "workdir" in one), WORK_FOLDER)
    nodes = chain[-1]["config"].get("nodes") or [chain[-1]["config"].get("hostname", "")]
    for node in nodes:
        with connected(node["hostname"] if isinstance(node, Mapping) else node) as site:
            if len(chain) == 1:
                yield "ok", f"ssh {site.host} answers, and its host key is known"
                yield _work_folder(site, folder)
            for name, service in deployment["config"].get("services", {}).items():
                options = service if isinstance(service, Mapping) else {"file": service}
                if deployment["type"] == "slurm":
                    yield _submission(site, folder, name, options)
                if "file" in options:
                    yield _image(site, folder, name, (here / options["file"]).read_text(encoding="utf-8"))


def _work_folder(site: Site, folder: str) -> tuple[Verdict, str]:
    answer = site.run(f"folder={shlex.quote(folder)}\n{WRITABLE}")
    if answer.status:
        return "to do", f"{folder} cannot be written to ({_line(answer.err)}); make it, or change workdir"
    free_gb = int(answer.out) * 1024 / 1e9
    if free_gb < NEEDED_GB:
        return "to do", f"{folder} has {free_gb:.1f} GB free; need {NEEDED_GB:.0f} GB. Make room, or change workdir"
    return "ok", f"{folder} can be written to, {free_gb:.0f} GB free"


def _submission(site: Site, folder: str, name: str, options: Mapping[str, Any]) -> tuple[Verdict, str]:
    """Ask Slurm whether it would take a job with a service's options: partition, gres, memory, time, account."""
    flags = [flag for key, value in options.items() if key != "file" for flag in _flag(key, value)]
    answer = site.run(f"cd {shlex.quote(folder)} && sbatch --test-only {shlex.join(flags)} --wrap=true")
    said = " ".join(flags) or "no options"
    if answer.status:
        return "to do", f"Slurm refuses service {name} with {said} ({_line(answer.err)}); correct its options"
    return "ok", f"Slurm takes service {name} with {said}"


def _flag(key: str, value: Any) -> list[str]:
    """Return an option of a Slurm service, `cpusPerTask: 2`, as sbatch takes it."""
    flag = "--" + re.sub(r"[A-Z]", lambda letter: f"-{letter[0].lower()}", key)
    if isinstance(value, bool):
        return [flag] if value else []
    return [f"{flag}={value}"]


def _image(site: Site, folder: str, name: str, template: str) -> tuple[Verdict, str]:
    """Look for the image that a template starts: a .sif for apptainer, else one of podman's."""
    found = re.search(r"[\w./${}-]+\.sif\b", template)
    sif = re.sub(r"\$\{?project\}?(?=/)", folder, found[0]) if found else ""
    found = re.search(r"\b(?:localhost|[\w-]+(?:\.[\w-]+)+)(?::\d+)?/[\w./-]+:[\w.-]+", template)
    tag = found[0] if found else ""
    if (not sif and not tag) or "$" in sif:
        return "note", f"service {name}: its template names no image that can be looked for"
    values = {"folder": folder, "sif": sif, "tag": tag}
    answer = site.run("\n".join(f"{key}={shlex.quote(value)}" for key, value in values.items()) + IMAGE)
    if answer.status:
        wanted = " nor ".join(filter(None, (sif and f"{sif} for apptainer", tag and f"{tag} for podman")))
        return "to do", f"service {name}: no image, neither {wanted}; put one there: containers/README.md"
    return "ok", f"service {name}: image {answer.out.strip()}"


def _kubernetes(deployment: Mapping[str, Any], _: Mapping[str, Any], here: Path) -> Looked:
    settings = deployment["config"]
    context, namespace = settings.get("kubeContext") or "", settings.get("namespace") or ""
    with cluster(context, namespace=namespace, kubeconfig=settings.get("kubeconfig")) as ours:
        version = kubernetes.client.VersionApi(ours.api).get_code(_request_timeout=REQUEST_S)
        yield "ok", f"cluster {ours.name} answers, version {version.major}.{version.minor}"
        if (int(version.major), int(re.sub(r"\D.*", "", version.minor))) < EXEC_SINCE:
            yield "note", "a cluster before 1.30 runs nothing for StreamFlow unless its exec speaks v5.channel.k8s.io"
        missing = [right for group, resource, verbs in RIGHTS for right in _missing(ours, group, resource, verbs)]
        if missing:
            said = f"you may not {', '.join(missing)} in namespace {ours.namespace}"
            yield "to do", f"{said}; ask its administrator for the role in environments/kubernetes/site.yaml"
        else:
            yield "ok", f"you may make and run workers in namespace {ours.namespace}"
        for file in settings.get("files", []):
            yield _manifest(ours, here / file, file)


def _missing(ours: Cluster, group: str, resource: str, verbs: tuple[str, ...]) -> Iterator[str]:
    api = kubernetes.client.AuthorizationV1Api(ours.api)
    kind, _, sub = resource.partition("/")
    for verb in verbs:
        asked = {"group": group, "resource": kind, "subresource": sub, "verb": verb, "namespace": ours.namespace}
        review = {"spec": {"resourceAttributes": asked}}
        answer = api.create_self_subject_access_review(review, _request_timeout=REQUEST_S)
        if not answer.status.allowed:
            yield f"{verb} {resource}"


def _manifest(ours: Cluster, path: Path, name: str) -> tuple[Verdict, str]:
    """Ask the cluster to take a manifest without making anything: finds a missing namespace, a quota, a wrong field."""
    try:
        kubernetes.utils.create_from_yaml(ours.api, str(path), namespace=ours.namespace, dry_run="All")
    except kubernetes.utils.FailToCreateError as error:
        refused = [one for one in error.api_exceptions if one.status != 409]  # there is one of that name already
        if refused:
            return "to do", f"{name}: the cluster {refusal(refused[0])}; correct it, or ask the cluster's administrator"
    return "ok", f"{name}: the cluster takes it in namespace {ours.namespace}"


def _line(text: str) -> str:
    return " ".join(text.split())
