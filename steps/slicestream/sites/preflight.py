"""Before a run: does each deployment of a StreamFlow file have what the run will ask of it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from slicestream.errors import SiteError
from slicestream.sites import login, namespace, slurm
from slicestream.sites.cluster import cluster
from slicestream.sites.deployments import WORK_FOLDER, wrapped
from slicestream.sites.findings import LAPTOP, Finding, Row, Rows, one_line
from slicestream.sites.images import folder_of, local_builds
from slicestream.sites.manifests import workers
from slicestream.sites.ssh import Site, connected
from slicestream.sites.targets import training_services


@dataclass(frozen=True, kw_only=True, slots=True)
class _Question:
    """A deployment, and what the file says of the others."""

    name: str
    deployments: Mapping[str, Any]
    here: Path
    builds: Mapping[str, tuple[Path, str]]
    training: Set[tuple[str, str]]
    link: bool

    @property
    def chain(self) -> list[Mapping[str, Any]]:
        """The deployment and those that it wraps, the last is the connection."""
        found = [self.deployments[self.name]]
        while inner := wrapped(found[-1]):
            found.append(self.deployments[inner])
        return found


def findings(
    config: Mapping[str, Any], *, where: Path, images: Path | None = None, link: bool = True
) -> Iterator[Finding]:
    """Yield what is found about every deployment of a valid StreamFlow file that is not `local`.

    `images` is the folder with our own images, the nearest `containers/images` to the file if None; `link` says
    whether to measure links.
    """
    deployments = config.get("deployments", {})
    builds = local_builds(images or folder_of(where))
    training = training_services(config, where=where)
    for name, deployment in deployments.items():
        look = {"ssh": _ssh, "slurm": _ssh, "kubernetes": _kubernetes}.get(deployment["type"])
        if look is None:
            rows: Rows = iter([("type", "note", f"{deployment['type']} is not looked at")])
            rows = iter(()) if deployment["type"] == "local" else rows
        else:
            rows = look(
                _Question(
                    name=name, deployments=deployments, here=where.parent, builds=builds, training=training, link=link
                )
            )
        for looked_at, verdict, line in _in_one_piece(rows):
            yield Finding(file=str(where), deployment=name, looked_at=looked_at, verdict=verdict, line=line)


def names(config: Mapping[str, Any]) -> list[str]:
    """Return what may stand in the column of deployments."""
    return [LAPTOP, *map(str, config.get("deployments", {}))]


def _in_one_piece(rows: Rows) -> Rows:
    """A site that stops to answer ends its rows with one that says where."""
    try:
        for looked_at, verdict, line in rows:
            yield looked_at, verdict, one_line(line)  # what a site says may hold anything
    except SiteError as error:
        yield error.stage or "answer", "to do", one_line(error)


def _ssh(question: _Question) -> Rows:
    chain = question.chain
    folder = next((str(one["workdir"]) for one in chain if "workdir" in one), WORK_FOLDER)
    nodes = chain[-1]["config"].get("nodes") or [chain[-1]["config"].get("hostname", "")]
    for node in nodes:
        try:
            with connected(node["hostname"] if isinstance(node, Mapping) else node) as site:
                yield from _host(question, site, folder)
        except SiteError as error:
            yield from login.passed(error.stage)
            raise


def _host(question: _Question, site: Site, folder: str) -> Rows:
    if len(question.chain) == 1:
        yield from login.reached(site)
        yield from login.folders(site, folder)
        yield login.clock_of(site)
        if question.link:
            yield login.link_rate(site)
    for name, service in question.chain[0]["config"].get("services", {}).items():
        options = service if isinstance(service, Mapping) else {"file": service}
        yield from _service(question, site, folder, name, options)


def _service(question: _Question, site: Site, folder: str, name: str, options: Mapping[str, Any]) -> Rows:
    trains = (question.name, name) in question.training
    if question.chain[0]["type"] == "slurm":
        device = login.device_of(site, folder)
        yield from slurm.submission(site, folder, name, options, trains=trains, device=device)
    elif trains:
        yield login.gpu(site, folder, name)
    if "file" in options:
        template = (question.here / options["file"]).read_text(encoding="utf-8")
        yield from login.container(site, folder, name, template, question.builds)


def _kubernetes(question: _Question) -> Rows:
    settings = question.chain[0]["config"]
    context, wanted = settings.get("kubeContext") or "", settings.get("namespace") or ""
    with cluster(context, namespace=wanted, kubeconfig=settings.get("kubeconfig")) as ours:
        yield "context", "ok", f"{ours.name}, namespace {ours.namespace}"
        version, rows = namespace.answering(ours)
        yield from rows
        labels, row = namespace.namespace(ours)
        yield row
        if row[1] == "to do":
            return
        may = namespace.rights(ours)
        yield may
        here, files = question.here, settings.get("files", [])
        read = {here / file: _documents(here / file) for file in files}
        yield from (row for row in read.values() if isinstance(row, tuple))
        if may[1] == "to do" or any(isinstance(row, tuple) for row in read.values()):
            return
        taken = [namespace.manifest(ours, str(file), list(read[here / file])) for file in files]
        yield from taken
        if any(verdict == "to do" for _, verdict, _ in taken):
            return
        every = list(workers([*read]))
        yield namespace.quota(ours, every)
        yield from namespace.nodes(ours, every)
        yield namespace.pod_security(ours, version, labels)
        yield namespace.network_policy(ours, every)


def _documents(path: Path) -> list[Any] | Row:
    """Return the objects of a manifest, or the row that says why it cannot be read."""
    try:
        return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]
    except (OSError, ValueError, yaml.YAMLError) as error:
        return "manifest", "to do", f"{path}: not YAML ({' '.join(str(error).split())}); correct it"
