"""No binding of a StreamFlow file may send a step that sees identities off this machine.

StreamFlow names a step by its path in the workflow, `/pick/choose` for one of a nested workflow. The deepest binding at
or above that path counts; a step without one runs here. Which program a step runs is read from its CWL file, so that
another name does not hide it; what cannot be read stays here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from slicestream.errors import BindingError
from slicestream.sites.deployments import wrapped

# preprocess and export see identities; evaluate, view and report read what preprocess keeps at home.
KEPT_HERE = frozenset({"preprocess", "export", "evaluate", "view", "report"})
CONTAINERS_HERE = frozenset({"none", "default", "docker", "singularity"})
ROOT = PurePosixPath("/")


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A step of a workflow, whether it stays here, and the words of its command."""

    path: PurePosixPath
    kept: bool
    words: frozenset[str] = frozenset()


def check_bindings(config: Mapping[str, Any], *, where: str) -> None:
    """Refuse a configuration that sends one of KEPT_HERE to anything but a `local` deployment.

    `where` is the path of its file; CWL files are found from there. Without them the names of the steps decide.

    Raises
    ------
    BindingError
        One line: file, step, deployment, its type, what to do.
    """
    for name, workflow in _mapping(config.get("workflows")).items():
        settings = _mapping(workflow.get("config"))
        bindings = [binding for binding in workflow.get("bindings") or [] if isinstance(binding, Mapping)]
        by_step = {PurePosixPath(one["step"]): one for one in bindings if "step" in one}
        containers = {PurePosixPath(one.get("step", "/")): one for one in settings.get("docker") or []}
        steps = _steps(Path(where).parent / str(settings.get("file", "")), by_step.keys() | containers.keys())
        for step in steps:
            if step.kept:
                _refuse_remote(step, config, deepest(step.path, by_step), where=f"{where}: workflow {name}")
                _refuse_container(step, deepest(step.path, containers), where=f"{where}: workflow {name}")
        sent = {step.path for step in steps if not step.kept}
        for binding in bindings:
            port = PurePosixPath(binding.get("port", "/"))
            if "port" in binding and not sent & set(port.parents):
                _refuse_remote(Step(path=port, kept=True), config, binding, where=f"{where}: workflow {name}")


def _refuse_remote(step: Step, config: Mapping[str, Any], binding: Mapping[str, Any] | None, *, where: str) -> None:
    targets = binding["target"] if binding else []
    for target in [targets] if isinstance(targets, Mapping) else targets:
        name = str(target.get("deployment", target.get("model")))
        for link, kind in _chain(name, config):
            if kind != "local":
                what = "port" if binding and "port" in binding else "step"
                via = "" if link == name else f" through {link!r}"
                raise BindingError(
                    f"{where}: {what} {step.path} goes to deployment {name!r}{via} of type {kind}, but it may see "
                    "identities; need type local. Bind it to a local deployment, or to none."
                )


def _refuse_container(step: Step, entry: Mapping[str, Any] | None, *, where: str) -> None:
    kind = str(_mapping(entry.get("deployment")).get("type")) if entry else "none"
    if kind not in CONTAINERS_HERE:
        raise BindingError(
            f"{where}: step {step.path} gets its container from a deployment of type {kind}, but it may see "
            "identities; need a container on this machine. Set type none for it under docker."
        )


def _chain(name: str, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and type of a deployment and of each that it wraps."""
    deployments = _mapping(config.get("deployments") or config.get("models"))
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        deployment = _mapping(deployments.get(name))
        yield name, str(deployment.get("type", "unknown"))
        inner = wrapped(deployment)
        if inner is None:
            return
        name = inner


def deepest(path: PurePosixPath, entries: Mapping[PurePosixPath, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the entry that counts for a step: at its path, or nearest above it."""
    return next((entries[at] for at in (path, *path.parents) if at in entries), None)


def steps_in(file: Path) -> list[Step]:
    """Return the steps of a workflow's file, those of nested workflows too; none if it cannot be read."""
    document = _cwl(file)
    known = document is not None and document.get("class") == "Workflow"
    return list(_inside(document, ROOT, file=file)) if document and known else []


def _steps(file: Path, bound: Set[PurePosixPath]) -> list[Step]:
    """Return the steps of a workflow; without its file, those that a binding may mean."""
    document = _cwl(file)
    if document is None:
        named = sorted(bound | {ROOT / name for name in KEPT_HERE})
        return [Step(path=path, kept=not KEPT_HERE.isdisjoint(path.parts)) for path in named]
    if document.get("class") == "Workflow":
        return list(_inside(document, ROOT, file=file))
    if _stays(document):  # a tool by itself is step `/`; a packed file is not looked into
        return [Step(path=path, kept=True) for path in {ROOT, *bound}]
    return []


def _inside(workflow: Mapping[str, Any], prefix: PurePosixPath, *, file: Path) -> Iterator[Step]:
    steps = workflow.get("steps") or {}
    named = steps.items() if isinstance(steps, Mapping) else [(str(one["id"]).lstrip("#"), one) for one in steps]
    for name, step in named:
        run, path = step.get("run"), prefix / name
        inner_file = file if isinstance(run, Mapping) else file.parent / str(run)
        document = run if isinstance(run, Mapping) else _cwl(inner_file)
        if document is not None and document.get("class") == "Workflow":
            yield from _inside(document, path, file=inner_file)
        else:
            kept = name in KEPT_HERE or document is None or _stays(document)
            yield Step(path=path, kept=kept, words=_words(document or {}))


def _stays(tool: Mapping[str, Any]) -> bool:
    """Whether a tool runs one of our steps that stay here, or cannot be judged."""
    if tool.get("class") not in ("CommandLineTool", "ExpressionTool"):
        return True
    return not KEPT_HERE.isdisjoint(_words(tool))


def _words(tool: Mapping[str, Any]) -> frozenset[str]:
    base, arguments = tool.get("baseCommand") or [], tool.get("arguments") or []
    return frozenset(map(str, [*([base] if isinstance(base, str) else base), *arguments]))


def _cwl(file: Path) -> Mapping[str, Any] | None:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return document if isinstance(document, Mapping) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
