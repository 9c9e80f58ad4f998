cwlVersion: v1.2
class: CommandLineTool
id: report
label: One HTML file that shows the run, and the model's card
doc: Needs no network to be read. Completes the model's card with the test metrics where a model was trained.
$namespaces: {edam: "http://edamontology.org/"}
baseCommand: [slicestream, report]
hints:
  DockerRequirement: {dockerPull: "slicestream/train:0.1.0"}
  ResourceRequirement: {coresMin: 1, ramMin: 2048}
inputs:
  split:
    type: File?
    doc: The split table (patients, series, images per side).
    inputBinding: {prefix: --split}
  history:
    type: File?
    doc: Training history per epoch; no times.
    inputBinding: {prefix: --history}
  metrics:
    type: File?
    doc: The metrics, lengths in mm, volumes in mm³.
    inputBinding: {prefix: --metrics}
  nodules:
    type: File
    doc: One row per nodule found, volume in mm³, diameters and centre in mm, mean and deviation in HU.
    inputBinding: {prefix: --nodules}
  overlays:
    type: Directory
    doc: PNG per slice of interest.
    inputBinding: {prefix: --overlays}
  records:
    type: File[]
    doc: Run records of the steps before, times in seconds.
    inputBinding: {prefix: --records}
  model:
    type: File?
    doc: The model that was trained, as ONNX.
    inputBinding: {prefix: --model}
  weights:
    type: File?
    doc: Its weights alone.
    inputBinding: {prefix: --weights}
  card:
    type: File?
    doc: Its architecture, training configuration and validation metrics.
    inputBinding: {prefix: --card}
  viewer:
    type: boolean?
    doc: Lead from each nodule to the viewer, whose folder lies beside the report.
    inputBinding: {prefix: --viewer}
  title:
    type: string?
    doc: Heading of the report.
    inputBinding: {prefix: --title}
outputs:
  report:
    type: File
    doc: The report.
    format: edam:format_2331
    outputBinding: {glob: report.html}
  trained:
    type: Directory?
    doc: "The trained model: model.onnx, weights.safetensors, model.json with the test metrics, model-card.md."
    outputBinding: {glob: model}
  model_card:
    type: File?
    doc: "The trained model's card for people, Markdown: use, data, metrics, limits, CLAIM, hashes; no times."
    format: edam:format_2330
    outputBinding: {glob: model-card.md}
  run_record:
    type: File
    doc: Who did what, where, when; times in seconds, sizes in bytes.
    format: edam:format_3464
    outputBinding: {glob: report.run.json}
