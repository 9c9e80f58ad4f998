cwlVersion: v1.2
class: Workflow
id: segment
label: New studies and a model in, DICOM SEG and SR, overlays, a nodule table and a report out
doc: |
  For plain clinical folders: nothing is trained, nothing is scored, no annotation is read.
requirements:
  ScatterFeatureRequirement: {}
  MultipleInputFeatureRequirement: {}
inputs:
  cohort:
    type: Directory
    doc: Folder of DICOM files in any nesting, of one or more CT series; needs no annotations.
  pseudonym_key:
    type: File
    doc: The site's secret key of the pseudonyms, text of one line. Reused over runs, never leaves the laptop.
  exclude:
    type: File?
    doc: PatientIDs to leave out, one per line.
  strict:
    type: boolean
    doc: Stop where CT is found that cannot be used, instead of setting it aside.
    default: false
  shares:
    type: string[]
    doc: Parts that the cohort is worked on in, side by side, "i/n" each; whole patients, balanced by work.
    default: [1/2, 2/2]
  model:
    type: File
    doc: A trained network, model.onnx.
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
    doc: CPU threads of inference; all cores if not given.
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
      exclude: exclude
      strict: strict
      no_annotations: {default: true}
    out: [volumes, references, slices, index, identity, run_record]
  infer:
    run: tools/infer.cwl
    scatter: volumes
    in:
      model: model
      volumes: preprocess/volumes
      batch_size: batch_size
      precision: precision
      threshold: threshold
      min_score: min_score
      flips: flips
      no_lung_mask: no_lung_mask
      threads: threads
    out: [masks, run_record]
  export:
    run: tools/export.cwl
    in:
      masks: infer/masks
      volumes: preprocess/volumes
      identities: preprocess/identity
      segmentation: segmentation
      captures: captures
      nifti: nifti
    out: [segmentations, measurements, overlays, nodules, key_images, copies, run_record]
  view:
    run: tools/view.cwl
    in:
      masks: infer/masks
      volumes: preprocess/volumes
      viewer_mb: viewer_mb
    out: [viewer, run_record]
  report:
    run: tools/report.cwl
    in:
      nodules: export/nodules
      overlays: export/overlays
      records:
        source:
          - preprocess/run_record
          - infer/run_record
          - export/run_record
          - view/run_record
        linkMerge: merge_flattened
      title: title
      viewer: {default: true}
    out: [report, trained, run_record]
outputs:
  page:
    type: File
    doc: The report, one self-contained HTML file.
    outputSource: report/report
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
  run_records:
    type: File[]
    doc: Who did what, where, when, per job; times in seconds, sizes in bytes.
    outputSource:
      - preprocess/run_record
      - infer/run_record
      - export/run_record
      - view/run_record
      - report/run_record
    linkMerge: merge_flattened
