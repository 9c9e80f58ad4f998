"""Entities of a crate that say what was to be run: workflow, steps, tools, parameters and their connections."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from slicestream.provenance.workflows import Port, Process, Workflow

Entity = dict[str, Any]
MEDIA_TYPE = "application/cwl+yaml"
CWL = "https://w3id.org/workflowhub/workflow-ro-crate#cwl"


def ref(identifier: str) -> Entity:
    """Return a reference to an entity."""
    return {"@id": identifier}


def refs(identifiers: Collection[str]) -> list[Entity]:
    """Return references, each once, in their order."""
    return [ref(one) for one in dict.fromkeys(identifiers)]


def step_id(workflow: Workflow, step: str) -> str:
    """Return the identifier of a step."""
    return f"{workflow.process.id}#{workflow.process.name}/{step}"


def workflow_properties(workflow: Workflow, ran: Collection[str]) -> Entity:
    """Return the properties of the main entity; of the steps and tools only those that ran are named."""
    process, steps = workflow.process, [step for name, step in workflow.steps.items() if name in ran]
    connections = [connection_id(port) for port in process.outputs.values() if _into(workflow, port, ran)]
    return {
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
        **_process(process),
        "encodingFormat": MEDIA_TYPE,
        "conformsTo": ref("https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"),
        "hasPart": refs([step.tool.id for step in steps]),
        "step": refs([step_id(workflow, step.name) for step in steps]),
        "connection": refs(connections),
    }


def tool_properties(tool: Process) -> Entity:
    """Return the properties of a tool that ran."""
    return {
        "@type": ["File", "SoftwareSourceCode"],
        **_process(tool),
        "programmingLanguage": ref(CWL),
        "encodingFormat": MEDIA_TYPE,
    }


def workflow_entities(workflow: Workflow, ran: Collection[str]) -> Iterator[Entity]:
    """Yield steps, parameters and connections."""
    steps = [step for name, step in workflow.steps.items() if name in ran]
    for process in (workflow.process, *(step.tool for step in steps)):
        for port in (*process.inputs.values(), *process.outputs.values()):
            yield _parameter(port)
    for step in steps:
        joined = {name: found for name, given in step.sources.items() if (found := _parameters(workflow, given, ran))}
        yield {
            "@id": step_id(workflow, step.name),
            "@type": "HowToStep",
            "name": step.name,
            "position": str(step.position),
            "workExample": ref(step.tool.id),
            "connection": refs([connection_id(step.tool.inputs[name]) for name in joined]),
        }
        for name, sources in joined.items():
            yield _connection(step.tool.inputs[name], sources)
    for port in workflow.process.outputs.values():
        if sources := _into(workflow, port, ran):
            yield _connection(port, sources)


def connection_id(port: Port) -> str:
    """Return the identifier of what leads into a port."""
    return f"#into-{port.id.replace('#', '-').replace('/', '-')}"


def _process(process: Process) -> Entity:
    return {
        "name": process.label,
        "alternateName": process.name,
        "description": process.doc,
        "version": process.version,
        "input": refs([port.id for port in process.inputs.values()]),
        "output": refs([port.id for port in process.outputs.values()]),
    }


def _parameter(port: Port) -> Entity:
    return {
        "@id": port.id,
        "@type": "FormalParameter",
        "name": port.name,
        "description": port.doc,
        "additionalType": port.type,
        "valueRequired": str(not port.optional),
        "multipleValues": str(port.many),
        "conformsTo": ref("https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"),
        **({"encodingFormat": port.media_type} if port.media_type else {}),
    }


def _connection(target: Port, sources: list[str]) -> Entity:
    return {
        "@id": connection_id(target),
        "@type": "ParameterConnection",
        "sourceParameter": refs(sources),
        "targetParameter": ref(target.id),
    }


def _into(workflow: Workflow, output: Port, ran: Collection[str]) -> list[str]:
    return _parameters(workflow, workflow.sources[output.name], ran)


def _parameters(workflow: Workflow, sources: Collection[str], ran: Collection[str]) -> list[str]:
    """Return the parameters that sources mean: inputs of the workflow, outputs of steps that ran, through others."""
    found = []
    for source in sources:
        step, _, port = source.rpartition("/")
        if not step:
            found.append(workflow.process.inputs[port].id)
        elif step in workflow.passing:
            found += _parameters(workflow, workflow.passing[step], ran)
        elif step in ran:
            found.append(workflow.steps[step].tool.outputs[port].id)
    return found
