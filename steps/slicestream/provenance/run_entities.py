"""Entities of a crate that say what was run: executions, the artefacts they met at, places, transfers, software."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from slicestream.provenance.runs import Execution, File, Link, Run
from slicestream.provenance.workflow_entities import Entity, ref, refs, step_id
from slicestream.provenance.workflows import Port, Step, Workflow

COHORT = "#cohort"
RUN = "#run"
ENGINE = "#engine"
ENGINES = {
    "StreamFlow": "https://streamflow.di.unito.it",
    "cwltool": "https://github.com/common-workflow-language/cwltool",
}
COMPLETED, FAILED = "http://schema.org/CompletedActionStatus", "http://schema.org/FailedActionStatus"
_BYTE, _SECOND = "https://qudt.org/vocab/unit/BYTE", "https://qudt.org/vocab/unit/SEC"
_UNITS = {"seconds": _SECOND, "bytes_in": _BYTE, "bytes_out": _BYTE, "bytes": _BYTE}
_DOCKER = "https://w3id.org/ro/terms/workflow-run#DockerImage"
_ENDED_BADLY = "ended without a run record; the log stays where the run was made"


@dataclass(kw_only=True, slots=True)
class RunEntities:
    """Collects the entities of a run.

    `places` maps the hash of a file that the crate holds to its place in it, `sizes` the name of one of the run's
    folder to its bytes.
    """

    run: Run
    workflow: Workflow
    places: Mapping[str, str]
    sizes: Mapping[str, int]
    entities: dict[str, Entity] = field(default_factory=dict)
    of_run: dict[str, list[str]] = field(default_factory=lambda: {"object": [], "result": []})

    def build(self) -> dict[str, Entity]:
        """Return the entities by identifier. Those of files that the crate holds are in it too, by their place."""
        for execution in self.run.executions:
            self._execution(execution, self.workflow.steps[execution.step])
        for number, link in enumerate(self.run.links):
            self._link(number, link)
        self._orchestration()
        return self.entities

    def _add(self, entity: str, kind: str, /, **properties: Any) -> str:
        filled = {name: value for name, value in properties.items() if value not in ("", [], None)}
        self.entities.setdefault(entity, {"@id": entity, "@type": kind, **filled})
        return entity

    def _execution(self, one: Execution, step: Step) -> None:
        objects = [self._file(file, step, step.tool.inputs) for file in one.inputs]
        objects += [self._setting(one, name, value, step) for name, value in one.parameters.items()]
        if "cohort" in step.tool.inputs:
            objects.append(self._cohort(step))
        results = [self._file(file, step, step.tool.outputs) for file in one.outputs]
        self._add(
            f"#{one.name}",
            "CreateAction",
            name=one.name,
            description=f"{step.tool.label}, on {one.place}",
            instrument=ref(step.tool.id),
            startTime=one.start,
            endTime=one.end,
            actionStatus=FAILED if one.failed else COMPLETED,
            error=_ENDED_BADLY if one.failed else "",
            identifier=f"slurm_job:{one.slurm_job}" if one.slurm_job else "",
            location=ref(self._place(one.place, one.site)),
            containerImage=ref(self._image(one.image)) if one.image else None,
            softwareRequirements=refs([self._software(*pair) for pair in one.versions.items()]),
            resourceUsage=refs(list(self._usage(one))),
            object=refs(objects),
            result=refs(results),
        )

    def _usage(self, one: Execution) -> Iterator[str]:
        figures: dict[str, Any] = {**one.figures, "device": one.device, "gres": one.gres}
        for name, value in figures.items():
            if value != "":
                yield self._figure(one.name, name, value, unit=one.unit if name == "items" else "")

    def _figure(self, owner: str, name: str, value: float | str, unit: str = "") -> str:
        return self._add(
            f"#{owner}/{name}",
            "PropertyValue",
            name=name,
            propertyID=name,
            value=value,
            unitCode=_UNITS.get(name, ""),
            unitText=unit,
        )

    def _setting(self, one: Execution, name: str, value: Any, step: Step) -> str:
        identifier = self._add(f"#{one.name}/{name}", "PropertyValue", name=name, value=value)
        if name in step.tool.inputs:
            self._example(identifier, step.tool.inputs[name])
            self._of_workflow(identifier, step, name)
        return identifier

    def _cohort(self, step: Step) -> str:
        said = "The DICOM studies that were read. They tell who the patients are, so neither name nor hash is given."
        identifier = self._add(COHORT, "CreativeWork", name="cohort", description=said)
        self._example(identifier, step.tool.inputs["cohort"])
        self._of_workflow(identifier, step, "cohort")
        return identifier

    def _file(self, file: File, step: Step, ports: Mapping[str, Port]) -> str:
        """Return the identifier of an artefact: its place in the crate, or a name of one that stays behind."""
        place = self.places.get(file.content_hash)
        identifier = place or f"arcp://uuid,{uuid5(NAMESPACE_OID, self.run.id)}/{file.content_hash[:16]}/{file.name}"
        of_content = {"identifier": f"content_hash:{file.content_hash}"}
        named = of_content if file.kind.of_content else {"sha256": file.content_hash}
        size = str(self.sizes.get(file.name, ""))
        self._add(identifier, "File", name=file.name, encodingFormat=file.kind.media_type, contentSize=size, **named)
        for name in file.kind.ports:
            if name in ports:
                self._example(identifier, ports[name])
                self._of_workflow(identifier, step, name)
        return identifier

    def _of_workflow(self, identifier: str, step: Step, port: str) -> None:
        """Note what enters the workflow by this port of a step, or leaves it."""
        process = self.workflow.process
        for source in step.sources.get(port, ()) if port in step.tool.inputs else ():
            if "/" not in source:
                self.of_run["object"].append(identifier)
                self._example(identifier, process.inputs[source])
        for output, sources in self.workflow.sources.items():
            if port in step.tool.outputs and f"{step.name}/{port}" in sources:
                self.of_run["result"].append(identifier)
                self._example(identifier, process.outputs[output])

    def _example(self, identifier: str, port: Port) -> None:
        # a file of a folder is no example of the folder, nor one part of a list of shares of the list
        is_file = self.entities[identifier]["@type"] == "File"
        if is_file != (port.type == "File") and identifier != COHORT:
            return
        works = self.entities[identifier].setdefault("exampleOfWork", [])
        if ref(port.id) not in works:
            works.append(ref(port.id))

    def _place(self, alias: str, kind: str = "") -> str:
        return self._add(f"#site-{alias}", "Place", name=alias, description=kind)

    def _image(self, image: str) -> str:
        place, _, build = image.partition("@")
        registry, _, named = place.partition("/")
        name, _, tag = named.partition(":")
        identifier = f"#{name.replace('/', '-')}-{build.removeprefix('build:')[:16]}"
        told = {"name": name, "registry": registry, "tag": tag, "identifier": build}
        return self._add(identifier, "ContainerImage", additionalType=ref(_DOCKER), **told)

    def _software(self, name: str, version: str) -> str:
        return self._add(f"#{name}-{version}", "SoftwareApplication", name=name, softwareVersion=version)

    def _link(self, number: int, link: Link) -> None:
        figures = {"bytes": link.bytes, "seconds": link.seconds, "files": link.files}
        name = f"link-{number}"
        self._add(
            f"#{name}",
            "TransferAction",
            name=f"{link.source} to {link.destination}",
            fromLocation=ref(self._place(link.source)),
            toLocation=ref(self._place(link.destination)),
            resourceUsage=refs([self._figure(name, key, value) for key, value in figures.items()]),
        )

    def _orchestration(self) -> None:
        """Add the run as a whole: the engine, what it did for each step, the execution of the workflow."""
        executions, missing = self.run.executions, missing_steps(self.run, self.workflow)
        failed = bool(missing) or any(one.failed for one in executions)
        times = {"startTime": min(one.start for one in executions), "endTime": max(one.end for one in executions)}
        status: Entity = {"actionStatus": FAILED if failed else COMPLETED}
        why = f"no record of: {', '.join(missing)}" if missing else _ENDED_BADLY
        self._add(
            RUN,
            "CreateAction",
            name=f"run {self.run.id} of {self.workflow.process.name}",
            description=self.workflow.process.label,
            instrument=ref(self.workflow.process.id),
            error=why if failed else "",
            object=refs(self.of_run["object"]),
            result=refs(self.of_run["result"]),
            **times,
            **status,
        )
        controls = []
        for name in dict.fromkeys(one.step for one in executions):
            own = [f"#{one.name}" for one in executions if one.step == name]
            step = ref(step_id(self.workflow, name))
            controls.append(self._add(f"#orchestrate-{name}", "ControlAction", instrument=step, object=refs(own)))
        engine = self.run.engine
        self._add(ENGINE, "SoftwareApplication", name=engine, url=ENGINES[engine], version=self.run.engine_version)
        self._add(
            "#orchestration",
            "OrganizeAction",
            name=f"{engine} runs {self.workflow.process.name}",
            instrument=ref(ENGINE),
            object=refs(controls),
            result=ref(RUN),
            **times,
            **status,
        )


def missing_steps(run: Run, workflow: Workflow) -> list[str]:
    """Return the steps of which nothing is recorded, in the workflow's order."""
    return [name for name in workflow.steps if name not in {one.step for one in run.executions}]
