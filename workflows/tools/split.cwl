cwlVersion: v1.2
class: CommandLineTool
id: split
label: Divide the cohort by patient and pack the training shards
doc: |
  Puts every patient on one side, packs the slices of the training and validation sides into a few shards, and says
  which volumes are test; the volumes themselves do not pass through it. Outputs are named in cwl.output.json.
baseCommand: [slicestream, split]
hints:
  DockerRequirement: {dockerPull: "slicestream/train:0.1.0"}
  ResourceRequirement: {coresMin: 1, ramMin: 4096}
inputs:
  slices:
    type: File[]
    doc: Training slices, one file per share.
    inputBinding: {prefix: --slices}
  indexes:
    type: File[]
    doc: What the volumes of each share hold, in the order of `slices`.
    inputBinding: {prefix: --indexes}
  fractions:
    type: float[]
    doc: Shares of the images for training, validation and test; they add up to 1.
    default: [0.8, 0.1, 0.1]
    inputBinding: {prefix: --fractions}
  seed:
    type: int
    doc: Seed of the division; the same seed and cohort give the same sides.
    default: 0
    inputBinding: {prefix: --seed}
outputs:
  training:
    type: File[]
    doc: Training shards, about 1 GiB each at most.
  validation:
    type: File[]
    doc: Validation shards, about 1 GiB each at most.
  split:
    type: File
    doc: The table of sides (patients, series, images) and the side of each pseudonymous patient.
  is_test:
    type: {type: array, items: Any}  # of boolean[]; spelled out, StreamFlow 0.2.0rc3 refuses it from cwl.output.json
    doc: For each share, in the order of its volumes, whether a volume is on the test side.
  run_record:
    type: File
    doc: Who did what, where, when; times in seconds, sizes in bytes.
