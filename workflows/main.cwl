cwlVersion: v1.2
class: Workflow
id: main
label: Cohort in, trained model, masks of the test patients and a report out
doc: |
  Preprocess, export, evaluate, view and report belong on the laptop: preprocess and export see identities. Training
  and inference may run elsewhere; streamflow.yml says where.
requirements:
  ScatterFeatureRequirement: {}
  MultipleInputFeatureRequirement: {}
  SubworkflowFeatureRequirement: {}
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
  batch_size:
    type: int?
    doc: Slices that the network works on at once; changes speed and memory, not the masks.
  precision:
    type: string
    doc: "What the network computes in: auto (bfloat16 where the CPU has it, else float32) or float32."
    default: auto
  threshold:
    type: float?
    doc: Probability from which a voxel is nodule, 0 to 1; the model's own if not given.
  min_score:
    type: float?
    doc: Score from which a candidate is kept, 0 to under 1; the model's own if not given.
  flips:
    type: boolean
    doc: Average the probability over mirrored copies of each slice; four times the work.
    default: false
  no_lung_mask:
    type: boolean
    doc: Keep the candidates outside the lungs too.
    default: false
  threads:
    type: int?
    doc: CPU threads of training and of inference, each; all cores if not given.
  segmentation:
    type: string
    doc: "Form of the DICOM SEG: binary, labelmap or both."
    default: binary
  captures:
    type: boolean
    doc: Write the overlays as DICOM Secondary Capture too.
    default: false
  nifti:
    type: boolean
    doc: Write NIfTI copies of volumes and masks too.
    default: false
  viewer_mb:
    type: float?
    doc: Size in MB that the series of the viewer may add up to, 1000 if not given; those left out are named.
  title:
    type: string?
    doc: Heading of the report.
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
  pick:
    run: pick.cwl
    scatter: [files, marks]
    scatterMethod: dotproduct
    in:
      files: preprocess/volumes
      marks: split/is_test
    out: [kept]
  infer:
    run: tools/infer.cwl
    scatter: volumes
    in:
      model: train/model
      volumes: pick/kept
      batch_size: batch_size
      precision: precision
      threshold: threshold
      min_score: min_score
      flips: flips
      no_lung_mask: no_lung_mask
      threads: threads
    out: [masks, run_record]
  evaluate:
    run: tools/evaluate.cwl
    in:
      masks: infer/masks
      references: preprocess/references
      split_name: {default: test}
      split: split/split
    out: [metrics, run_record]
  export:
    run: tools/export.cwl
    in:
      masks: infer/masks
      volumes: pick/kept
      identities: preprocess/identity
      references: preprocess/references
      segmentation: segmentation
      captures: captures
      nifti: nifti
    out: [segmentations, measurements, overlays, nodules, key_images, copies, run_record]
  view:
    run: tools/view.cwl
    in:
      masks: infer/masks
      volumes: pick/kept
      references: preprocess/references
      viewer_mb: viewer_mb
    out: [viewer, run_record]
  report:
    run: tools/report.cwl
    in:
      split: split/split
      history: train/history
      metrics: evaluate/metrics
      nodules: export/nodules
      overlays: export/overlays
      records:
        source:
          - preprocess/run_record
          - split/run_record
          - train/run_record
          - infer/run_record
          - evaluate/run_record
          - export/run_record
          - view/run_record
        linkMerge: merge_flattened
      model: train/model
      weights: train/weights
      card: train/card
      title: title
      viewer: {default: true}
    out: [report, trained, model_card, run_record]
outputs:
  page:
    type: File
    doc: The report, one self-contained HTML file.
    outputSource: report/report
  metrics:
    type: File
    doc: Metrics of the test patients, lengths in mm, volumes in mm³.
    outputSource: evaluate/metrics
  nodules:
    type: File
    doc: One row per nodule found, volume in mm³, diameters and centre in mm, mean and deviation in HU.
    outputSource: export/nodules
  segmentations:
    type: Directory
    doc: One DICOM SEG per series, which references the source series.
    outputSource: export/segmentations
  measurements:
    type: Directory
    doc: One DICOM SR (TID 1500) per study, volumes in mm³, diameters in mm, mean and deviation in HU.
    outputSource: export/measurements
  overlays:
    type: Directory
    doc: "PNG per slice of interest: reference green, prediction red, intersection yellow."
    outputSource: export/overlays
  trained:
    type: Directory?
    doc: "The trained model: model.onnx, weights.safetensors, model.json, model-card.md."
    outputSource: report/trained
  model_card:
    type: File?
    doc: The trained model's card for people, Markdown.
    outputSource: report/model_card
  viewer:
    type: Directory
    doc: The viewer, index.html in it, with the volumes and masks of the series; no identity.
    outputSource: view/viewer
  masks:
    type: {type: array, items: {type: array, items: File}}
    doc: One mask per volume and batch, labelled candidates with scores.
    outputSource: infer/masks
  key_images:
    type: Directory?
    doc: The overlays as DICOM Secondary Capture, where asked for.
    outputSource: export/key_images
  copies:
    type: Directory?
    doc: NIfTI copies of volumes and masks, where asked for.
    outputSource: export/copies
  split_table:
    type: File
    doc: The sides (patients, series, images) and the side of each pseudonymous patient.
    outputSource: split/split
  history:
    type: File
    doc: Losses and validation metrics per epoch; no times.
    outputSource: train/history
  curves:
    type: File
    doc: The history as a plot.
    outputSource: train/curves
  run_records:
    type: File[]
    doc: Who did what, where, when, per job; times in seconds, sizes in bytes.
    outputSource:
      - preprocess/run_record
      - split/run_record
      - train/run_record
      - infer/run_record
      - evaluate/run_record
      - export/run_record
      - view/run_record
      - report/run_record
    linkMerge: merge_flattened
