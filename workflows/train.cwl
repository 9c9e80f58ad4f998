cwlVersion: v1.2
class: Workflow
id: train
label: Cohort in, trained model out
doc: |
  The first half of main.cwl: the model is chosen on the validation side and the test side is left untouched.
requirements:
  ScatterFeatureRequirement: {}
  MultipleInputFeatureRequirement: {}
inputs:
  cohort:
    type: Directory
    doc: "Labelled cohort: the UniToChest layout (images, masks, dataset.csv), or DICOM with annotations."
  pseudonym_key:
    type: File
    doc: The site's secret key of the pseudonyms, text of one line. Reused over runs, never leaves the laptop.
  backgrounds:
    type: Directory?
    doc: Scans of other patients to train on only; what has no mask in them is shown as background.
  exclude:
    type: File?
    doc: PatientIDs to leave out, one per line.
  strict:
    type: boolean
    doc: Stop where CT is found that cannot be used, instead of setting it aside.
    default: false
  annotations:
    type: Directory?
    doc: Folder to look for annotations in, and nowhere else; without it they are looked for in the cohort.
  structure:
    type: string?
    doc: Name or pattern of the structure to take, of formats that have several.
  consensus:
    type: string
    doc: "How LIDC-IDRI's readers become one: majority, any, all, level-N (N readers at least) or staple."
    default: majority
  minimum_readers:
    type: int
    doc: Nodules that fewer readers drew are left out.
    default: 1
  shares:
    type: string[]
    doc: Parts that the cohort is worked on in, side by side, "i/n" each; whole patients, balanced by work.
    default: [1/2, 2/2]
  negatives:
    type: float
    doc: Share of the slices without a mask that training gets beside all those with one, 0 to 1.
    default: 0.1
  fractions:
    type: float[]
    doc: Shares of the images for training, validation and test; they add up to 1.
    default: [0.8, 0.1, 0.1]
  recipe:
    type: string
    doc: "A named training configuration: paper, laptop or phantom."
    default: paper
  epochs:
    type: int?
    doc: Passes over the training slices at most; the recipe's own number if not given.
  seed:
    type: int
    doc: Seed of the division into sides, the weights, the order and the augmentation.
    default: 0
  threads:
    type: int?
    doc: CPU threads of training; all cores if not given.
steps:
  preprocess:
    run: tools/preprocess.cwl
    scatter: share
    in:
      cohort: cohort
      pseudonym_key: pseudonym_key
      share: shares
      negatives: negatives
      backgrounds: backgrounds
      exclude: exclude
      strict: strict
      annotations: annotations
      structure: structure
      consensus: consensus
      minimum_readers: minimum_readers
    out: [volumes, references, slices, index, identity, run_record]
  split:
    run: tools/split.cwl
    in:
      slices: preprocess/slices
      indexes: preprocess/index
      fractions: fractions
      seed: seed
    out: [training, validation, split, is_test, run_record]
  train:
    run: tools/train.cwl
    in:
      training: split/training
      validation: split/validation
      recipe: recipe
      epochs: epochs
      seed: seed
      threads: threads
    out: [model, weights, card, history, curves, run_record]
outputs:
  model:
    type: File
    doc: The network with its weights, window (HU), training spacing (mm) and threshold, as ONNX.
    outputSource: train/model
  weights:
    type: File
    doc: The weights alone, to train on from.
    outputSource: train/weights
  card:
    type: File
    doc: Architecture, training configuration and validation metrics of the model.
    outputSource: train/card
  history:
    type: File
    doc: Losses and validation metrics per epoch; no times.
    outputSource: train/history
  curves:
    type: File
    doc: The history as a plot.
    outputSource: train/curves
  split_table:
    type: File
    doc: The sides (patients, series, images) and the side of each pseudonymous patient.
    outputSource: split/split
  run_records:
    type: File[]
    doc: Who did what, where, when, per job; times in seconds, sizes in bytes.
    outputSource:
      - preprocess/run_record
      - split/run_record
      - train/run_record
    linkMerge: merge_flattened
