"""Does each binding of a StreamFlow file lead from a step of the workflow to a service that is there?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from slicestream.sites.bindings import ROOT, Step, deepest, steps_in
from slicestream.sites.findings import LAPTOP, Row
from slicestream.sites.manifests import workers

TRAINS = "train"  # the program that needs a GPU


def targets(config: Mapping[str, Any], *, where: Path) -> Iterator[tuple[str, Row]]:
    """Yield for each binding its deployment and whether it can be followed."""
    for _, bindings, steps in _workflows(config, where):
        known = {path for step in steps for path in (step.path, *step.path.parents)}
        for binding in bindings:
            path = PurePosixPath(binding.get("step") or PurePosixPath(binding.get("port", "/")).parent)
            if steps and path not in known and not {step.path for step in steps} & set(path.parents):
                names = ", ".join(sorted(str(step.path) for step in steps))
                line = f"there is no step {path}, so this binding would be passed over; the workflow has {names}"
                yield LAPTOP, ("binding", "to do", line)
                continue
            for target in _list(binding["target"]):
                yield _followed(config, path, target, where)


def training_services(config: Mapping[str, Any], *, where: Path) -> frozenset[tuple[str, str]]:
    """Return deployment and service of each target that a training is bound to."""
    found = set()
    for _, bindings, steps in _workflows(config, where):
        by_step = {PurePosixPath(one["step"]): one for one in bindings if "step" in one}
        for step in steps:
            binding = deepest(step.path, by_step)
            if TRAINS in step.words and binding:
                found |= {(_deployment(one), str(one.get("service", ""))) for one in _list(binding["target"])}
    return frozenset(found)


def _workflows(config: Mapping[str, Any], where: Path) -> Iterator[tuple[str, list[Mapping[str, Any]], list[Step]]]:
    for name, workflow in (config.get("workflows") or {}).items():
        file = where.parent / str(workflow["config"].get("file", ""))
        bindings = [one for one in workflow.get("bindings") or [] if isinstance(one, Mapping)]
        yield name, bindings, [step for step in steps_in(file) if step.path != ROOT]


def _followed(
    config: Mapping[str, Any], path: PurePosixPath, target: Mapping[str, Any], where: Path
) -> tuple[str, Row]:
    name, service = _deployment(target), target.get("service")
    deployments = config.get("deployments") or {}
    if name not in deployments:
        line = f"step {path} goes to deployment {name}, which is not there; there are {', '.join(deployments)}"
        return LAPTOP, ("binding", "to do", line)
    services = _services(deployments[name], where)
    if service is not None and services is not None and service not in services:
        line = f"step {path} goes to service {service}, which is not there; there are {', '.join(services) or 'none'}"
        return name, ("binding", "to do", line)
    return name, (
        "binding",
        "ok",
        f"step {path} goes to service {service}" if service else f"step {path} goes to {name}",
    )


def _services(deployment: Mapping[str, Any], where: Path) -> list[str] | None:
    """Return the services of a deployment: its own, or the containers of its manifests; None where we know of none."""
    settings = deployment["config"]
    if deployment["type"] in ("ssh", "slurm"):
        return [*(settings.get("services") or {})]
    if deployment["type"] != "kubernetes":
        return None
    try:
        every = list(workers([where.parent / file for file in settings.get("files", [])]))
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError):
        return None  # said of the manifest
    return [str(container.get("name")) for one in every for container in one.containers]


def _deployment(target: Mapping[str, Any]) -> str:
    return str(target.get("deployment", target.get("model")))


def _list(targets_of: Any) -> list[Mapping[str, Any]]:
    return [targets_of] if isinstance(targets_of, Mapping) else list(targets_of)
