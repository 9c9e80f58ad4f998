"""The parts of a CWL workflow that its provenance refers to: steps, tools, ports and how they are joined."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from slicestream.errors import WorkflowError

FOLDER = "workflows"  # in the crate
_TYPES = {
    "string": "Text",
    "int": "Integer",
    "long": "Integer",
    "float": "Float",
    "double": "Float",
    "boolean": "Boolean",
    "File": "File",
    "Directory": "Dataset",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Port:
    """An input or output; `type` is RO-Crate's word for the CWL type, `many` says that it is a list."""

    id: str
    name: str
    type: str
    many: bool
    optional: bool
    doc: str
    media_type: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """A workflow or a tool: `id` is its file in the crate, `source` the file here."""

    id: str
    source: Path
    name: str
    label: str
    doc: str
    version: str
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A step; `sources` says of each input port where it comes from, as CWL writes it."""

    name: str
    position: int
    tool: Process
    sources: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Workflow:
    """A workflow, its steps that start a process, and the files that it is made of.

    `passing` says of the other steps, which only hand things on, where these come from.
    """

    process: Process
    steps: Mapping[str, Step]
    passing: Mapping[str, tuple[str, ...]]
    sources: Mapping[str, tuple[str, ...]]  # of its outputs
    files: tuple[tuple[str, Path], ...]  # place in the crate, file here


def read_workflow(path: Path) -> Workflow:
    """Read a workflow and the files that its steps run.

    Raises
    ------
    WorkflowError
        It cannot be read, or is written in a form that ours never have.
    """
    document = _read(path)
    try:
        if document["class"] != "Workflow":
            raise ValueError(f"class {document['class']}")
        files, steps, passing = {f"{FOLDER}/{path.name}": path}, {}, {}
        for position, (name, step) in enumerate(document["steps"].items()):
            run = (path.parent / step["run"]).resolve()
            place = f"{FOLDER}/{os.path.relpath(run, path.parent.resolve())}"
            if ".." in place:
                raise ValueError(f"step {name} runs a file outside of the workflow's folder")
            files[place] = run
            inner = _read(run)
            sources = {port: _sources(given, "source") for port, given in step["in"].items()}
            if inner["class"] != "CommandLineTool":
                passing[name] = tuple(one for some in sources.values() for one in some)
            else:
                tool = _process(place, run, inner)
                steps[name] = Step(name=name, position=position, tool=tool, sources=sources)
        return Workflow(
            process=_process(f"{FOLDER}/{path.name}", path, document),
            steps=steps,
            passing=passing,
            sources={name: _sources(port, "outputSource") for name, port in document["outputs"].items()},
            files=tuple(files.items()),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkflowError(
            f"{path}: {error!r}; need a workflow of SliceStream, with named steps and ports. "
            "Give one of workflows/*.cwl."
        ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise WorkflowError(f"{path}: {said}; need a CWL file. Give one of workflows/*.cwl.") from error
    if not isinstance(document, dict) or "class" not in document:
        raise WorkflowError(f"{path}: no CWL document; need a workflow. Give one of workflows/*.cwl.")
    return document


def _process(place: str, source: Path, document: dict[str, Any]) -> Process:
    return Process(
        id=place,
        source=source,
        name=document["id"],
        label=document["label"],
        doc=" ".join(document["doc"].split()),
        version=document["cwlVersion"],
        inputs={name: _port(place, name, port) for name, port in document["inputs"].items()},
        outputs={name: _port(place, name, port) for name, port in document["outputs"].items()},
    )


def _port(place: str, name: str, port: dict[str, Any]) -> Port:
    kind, many, optional = port["type"], False, False
    while not isinstance(kind, str):  # a list of types is an optional one of ours; an array has items
        many, optional = many or isinstance(kind, dict), optional or isinstance(kind, list)
        kind = kind["items"] if isinstance(kind, dict) else next(one for one in kind if one != "null")
    plain = kind.removesuffix("?")
    return Port(
        id=f"{place}#{name}",
        name=name,
        type=_TYPES.get(plain.removesuffix("[]"), "DataType"),
        many=many or plain.endswith("[]"),
        optional=optional or kind.endswith("?") or "default" in port,
        doc=" ".join(port["doc"].split()),
        media_type=port.get("format", "").replace("edam:", "http://edamontology.org/"),
    )


def _sources(given: Any, key: str) -> tuple[str, ...]:
    if isinstance(given, dict):
        given = given.get(key, [])
    return (given,) if isinstance(given, str) else tuple(given)
