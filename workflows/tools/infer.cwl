cwlVersion: v1.2
class: CommandLineTool
id: infer
label: Find candidates in volumes with a model
doc: Runs on CPUs with the ONNX file alone. No volumes give no masks.
$namespaces: {edam: "http://edamontology.org/"}
baseCommand: [slicestream, infer]
hints:
  DockerRequirement: {dockerPull: "slicestream/infer:0.1.0"}
  ResourceRequirement: {coresMin: 1, ramMin: 2048}
inputs:
  model:
    type: File
    doc: The trained network, model.onnx.
    inputBinding: {prefix: --model}
  volumes:
    type: File[]
    doc: Volumes to look at, one batch; may be none.
    inputBinding: {prefix: --volumes}
  batch_size:
    type: int?
    doc: Slices that the network works on at once; changes speed and memory, not the masks.
    inputBinding: {prefix: --batch-size}
  precision:
    type: string
    doc: "What the network computes in: auto (bfloat16 where the CPU has it, else float32) or float32."
    default: auto
    inputBinding: {prefix: --precision}
  threshold:
    type: float?
    doc: Probability from which a voxel is nodule, 0 to 1; the model's own if not given.
    inputBinding: {prefix: --threshold}
  min_score:
    type: float?
    doc: Score from which a candidate is kept, 0 to under 1; the model's own if not given.
    inputBinding: {prefix: --min-score}
  flips:
    type: boolean
    doc: Average the probability over mirrored copies of each slice; four times the work.
    default: false
    inputBinding: {prefix: --flips}
  min_diameter_mm:
    type: float?
    doc: Candidates of less volume than a ball of this diameter, in mm, are dropped; 2 if not given.
    inputBinding: {prefix: --min-diameter-mm}
  no_lung_mask:
    type: boolean
    doc: Keep the candidates outside the lungs too.
    default: false
    inputBinding: {prefix: --no-lung-mask}
  threads:
    type: int?
    doc: CPU threads of the network; all cores if not given.
    inputBinding: {prefix: --threads}
outputs:
  masks:
    type: File[]
    doc: One mask per volume, labelled candidates with scores, sorted by file name.
    outputBinding: {glob: "*.mask"}
  run_record:
    type: File
    doc: Who did what, where, when; times in seconds, sizes in bytes.
    format: edam:format_3464
    outputBinding: {glob: "infer-*.run.json"}
