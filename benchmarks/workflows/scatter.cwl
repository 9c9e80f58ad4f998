cwlVersion: v1.2
class: Workflow
doc: One step, scattered over a list of names.
requirements: {ScatterFeatureRequirement: {}}
inputs: {original: File, names: "string[]"}
steps:
  copy: {run: copy_tool.cwl, scatter: name, in: {original: original, name: names}, out: [copied]}
outputs:
  copied: {type: "File[]", outputSource: copy/copied}
