cwlVersion: v1.2
class: Workflow
id: pick
label: Keep the marked files of a list
doc: |
  Starts no process and needs no JavaScript: an expression tool hands its inputs on, conditionally, and the nulls are
  dropped. docs/decisions/0004-pick-the-test-volumes.md says why not simpler.
  cwltool's warnings are about that: `file` goes in and comes out under one name, and the nulls go last.
requirements:
  ScatterFeatureRequirement: {}
inputs:
  files:
    type: File[]
    doc: Files to choose from.
  marks:
    type: boolean[]
    doc: Whether to keep each.
outputs:
  kept:
    type: File[]
    doc: The marked files, in their order.
    outputSource: choose/file
    pickValue: all_non_null
steps:
  choose:
    run:
      class: ExpressionTool
      inputs:
        file: {type: File, doc: A file.}
        mark: {type: boolean, doc: Whether to keep it.}
      outputs:
        file: {type: File, doc: The same file.}
      expression: $(inputs)
    when: $(inputs.mark)
    scatter: [file, mark]
    scatterMethod: dotproduct
    in: {file: files, mark: marks}
    out: [file]
