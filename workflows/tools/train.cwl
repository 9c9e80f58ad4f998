cwlVersion: v1.2
class: CommandLineTool
id: train
label: Train the segmentation network and write the model
doc: |
  Uses a GPU where it finds one and records which device it got. Sees slices and masks only: no whole scan, no
  identity.
$namespaces: {edam: "http://edamontology.org/"}
baseCommand: [slicestream, train]
hints:
  DockerRequirement: {dockerPull: "slicestream/train:0.1.0"}
  ResourceRequirement: {coresMin: 2, ramMin: 8192}
inputs:
  training:
    type: File[]
    doc: Training shards.
    inputBinding: {prefix: --training}
  validation:
    type: File[]
    doc: Validation shards.
    inputBinding: {prefix: --validation}
  recipe:
    type: string
    doc: "A named training configuration: paper, laptop or phantom."
    default: paper
    inputBinding: {prefix: --recipe}
  epochs:
    type: int?
    doc: Passes over the training slices at most; the recipe's own number if not given.
    inputBinding: {prefix: --epochs}
  seed:
    type: int
    doc: Seed of the weights, the order and the augmentation.
    default: 0
    inputBinding: {prefix: --seed}
  device:
    type: string?
    doc: "auto, cpu or cuda; auto, which takes a GPU where there is one, if not given."
    inputBinding: {prefix: --device}
  threads:
    type: int?
    doc: CPU threads; all cores if not given.
    inputBinding: {prefix: --threads}
outputs:
  model:
    type: File
    doc: The network with its weights, window (HU), training spacing (mm) and threshold, as ONNX.
    outputBinding: {glob: model.onnx}
  weights:
    type: File
    doc: The weights alone, to train on from.
    outputBinding: {glob: weights.safetensors}
  card:
    type: File
    doc: Architecture, training configuration and validation metrics of the model.
    format: edam:format_3464
    outputBinding: {glob: model.json}
  history:
    type: File
    doc: Losses and validation metrics per epoch; no times.
    format: edam:format_3752
    outputBinding: {glob: history.csv}
  curves:
    type: File
    doc: The history as a plot.
    format: edam:format_3604
    outputBinding: {glob: curves.svg}
  run_record:
    type: File
    doc: Who did what, where, when; times in seconds, sizes in bytes.
    format: edam:format_3464
    outputBinding: {glob: train.run.json}
