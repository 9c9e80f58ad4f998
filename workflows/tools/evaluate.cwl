cwlVersion: v1.2
class: CommandLineTool
id: evaluate
label: Compare masks with references, every metric by name
doc: IoU and Dice in each usual definition, sensitivity per nodule, false positives per scan; docs/output.md defines them.
$namespaces: {edam: "http://edamontology.org/"}
baseCommand: [slicestream, evaluate]
hints:
  DockerRequirement: {dockerPull: "slicestream/train:0.1.0"}
  ResourceRequirement: {coresMin: 1, ramMin: 2048}
inputs:
  masks:
    type: {type: array, items: {type: array, items: File}}
    doc: Masks by the model; a list per batch.
    inputBinding: {prefix: --masks}
  references:
    type: {type: array, items: {type: array, items: File}}
    doc: Masks by readers; those of series without a mask by the model are left out; a list per batch.
    inputBinding: {prefix: --references}
  split_name:
    type: string
    doc: Which side the masks are from, written beside every figure.
    inputBinding: {prefix: --split-name}
  split:
    type: File?
    doc: The split table, to check that the masks are from that side.
    inputBinding: {prefix: --split}
outputs:
  metrics:
    type: File
    doc: The metrics, lengths in mm, volumes in mm³, each with its 95 % interval.
    format: edam:format_3464
    outputBinding: {glob: metrics.json}
  run_record:
    type: File
    doc: Who did what, where, when; times in seconds, sizes in bytes.
    format: edam:format_3464
    outputBinding: {glob: evaluate.run.json}
