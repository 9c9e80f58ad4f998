"""Writing the crate: a ZIP with the metadata, the workflow's files and the few results that may be handed on."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from slicestream import RESEARCH_ONLY
from slicestream.errors import ArtefactError
from slicestream.provenance.allowed import TAKEN
from slicestream.provenance.run_entities import RunEntities
from slicestream.provenance.runs import Run
from slicestream.provenance.workflow_entities import (
    MEDIA_TYPE,
    Entity,
    ref,
    refs,
    tool_properties,
    workflow_entities,
    workflow_properties,
)
from slicestream.provenance.workflows import Workflow
from slicestream.volumes.files import atomic_path

METADATA = "ro-crate-metadata.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same run gives the same bytes
_TERMS = "https://w3id.org/ro/terms/workflow-run#"
_EXTRA_TERMS = (
    *("ParameterConnection", "connection", "sourceParameter", "targetParameter", "resourceUsage"),
    *("ContainerImage", "containerImage", "registry", "tag", "sha256"),
)
_PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/provenance/0.5": ("Provenance Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
_LICENCE = "Not given: whoever made the run decides. The workflow files are under Apache-2.0."


def write_crate(out: Path, run: Run, workflow: Workflow, folder: Path) -> tuple[int, int]:
    """Write the crate of a run; return how many files are in it and how many are only described.

    Raises
    ------
    ArtefactError
        A result in the run's folder is not the one that the records tell of, or a step is not the workflow's.
    OutputError
    """
    _check_steps(run, workflow)
    taken = _taken(run, folder)
    crate = ROCrate(gen_preview=False, version="1.1")
    crate.metadata.extra_terms.update({term: f"{_TERMS}{term}" for term in _EXTRA_TERMS})
    places = {hashlib.sha256(path.read_bytes()).hexdigest(): place for place, path in taken.items()}
    entities = RunEntities(run=run, workflow=workflow, places=places, sizes=_sizes(run, folder)).build()
    described = _fill(crate, entities, workflow, taken)
    _root(crate, run, workflow, described)
    files = {**dict(workflow.files), **taken}
    metadata = json.dumps(crate.metadata.generate(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    with atomic_path(out) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(METADATA, _EPOCH), metadata, zipfile.ZIP_DEFLATED)
        for place, path in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(place, _EPOCH), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return len(files), len(described)


def _sizes(run: Run, folder: Path) -> dict[str, int]:
    """Return name → bytes of what the run's folder holds; of a name for two artefacts nothing."""
    told = {(file.name, file.content_hash) for one in run.executions for file in (*one.inputs, *one.outputs)}
    count = Counter(name for name, _ in told)
    return {path.name: path.stat().st_size for path in folder.rglob("*") if count[path.name] == 1 and path.is_file()}


def _check_steps(run: Run, workflow: Workflow) -> None:
    strange = sorted({one.step for one in run.executions} - set(workflow.steps))
    if strange:
        raise ArtefactError(
            f"{workflow.process.source}: has no step {', '.join(strange)}, of which the run has records; need the "
            "workflow that was run. Give it with --workflow."
        )


def _taken(run: Run, folder: Path) -> dict[str, Path]:
    """Return the results that go into the crate, by place; each must be the one that a record tells of."""
    told: dict[str, set[str]] = {}
    for one in run.executions:
        for file in one.outputs:
            told.setdefault(file.name, set()).add(file.content_hash)
    found = {}
    for place in TAKEN:
        path = folder / place
        if path.is_file() and path.name in told:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest not in told[path.name]:
                raise ArtefactError(
                    f"{path}: sha256 {digest[:12]}…, but the run's records tell of another; changed after the run. "
                    "Put back the run's own file, or remove it: then it is only described."
                )
            found[place] = path
    return found


def _fill(crate: Any, entities: dict[str, Entity], workflow: Workflow, taken: dict[str, Path]) -> list[str]:
    """Add all entities; return those of files that the crate does not hold."""
    ran = {name for name in workflow.steps if f"#orchestrate-{name}" in entities}
    tools = {step.tool.id: step.tool for name, step in workflow.steps.items() if name in ran}
    main = crate.add_workflow(
        workflow.process.source,
        workflow.process.id,
        main=True,
        lang="cwl",
        lang_version=workflow.process.version,
        gen_cwl=False,
        properties=_sized(workflow.process.source) | _properties(workflow_properties(workflow, ran)),
    )
    for place, path in workflow.files:
        if place != main.id:
            other = {"name": path.name, "encodingFormat": MEDIA_TYPE}
            known = tool_properties(tools[place]) if place in tools else other
            crate.add_file(path, place, properties=_sized(path) | _properties(known))
    for place, path in taken.items():
        crate.add_file(path, place, properties=_sized(path) | _properties(entities.pop(place)))
    _profiles(crate)
    for entity in (*workflow_entities(workflow, ran), *entities.values()):
        crate.add(ContextEntity(crate, entity["@id"], properties=_properties(entity)))
    actions = [name for name, entity in entities.items() if entity["@type"].endswith("Action")]
    crate.root_dataset["mentions"] = refs(actions)
    return [name for name, entity in entities.items() if entity["@type"] == "File"]


def _root(crate: Any, run: Run, workflow: Workflow, described: list[str]) -> None:
    root = crate.root_dataset
    root["name"] = f"SliceStream: run {run.id} of {workflow.process.name}"
    root["description"] = f"{workflow.process.label}. {RESEARCH_ONLY}"
    root["datePublished"] = max(one.end for one in run.executions)
    licence = {"@type": "CreativeWork", "name": "Licence", "description": _LICENCE}
    root["license"] = crate.add(ContextEntity(crate, "#licence", properties=licence))
    root["conformsTo"] = refs(list(_PROFILES))
    root["hasPart"] = [*(ref(part.id) for part in root["hasPart"]), *refs(described)]


def _profiles(crate: Any) -> None:
    for identifier, (name, version) in _PROFILES.items():
        properties = {"@type": "CreativeWork", "name": name, "version": version}
        crate.add(ContextEntity(crate, identifier, properties=properties))


def _sized(path: Path) -> Entity:
    return {"contentSize": str(path.stat().st_size)}


def _properties(entity: Entity) -> Entity:
    """Return an entity's properties, a list of one as that one."""
    filled = {name: value for name, value in entity.items() if name != "@id" and value != []}
    return {name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in filled.items()}
