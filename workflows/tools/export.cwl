cwlVersion: v1.2
class: CommandLineTool
id: export
label: Masks to DICOM SEG, DICOM SR, overlays and a nodule table
doc: Joins the masks with the identities again, so it runs on the laptop only.
$namespaces: {edam: "http://edamontology.org/"}
baseCommand: [slicestream, export]
hints:
  DockerRequirement: {dockerPull: "slicestream/train:0.1.0"}
  ResourceRequirement: {coresMin: 1, ramMin: 2048}
inputs:
  masks:
    type: {type: array, items: {type: array, items: File}}
    doc: Masks by the model; a list per batch.
    inputBinding: {prefix: --masks}
  volumes:
    type: {type: array, items: {type: array, items: File}}
    doc: The volumes that the masks were made from; a list per batch.
    inputBinding: {prefix: --volumes}
  identities:
    type: File[]
    doc: Identity maps that hold the source headers of the volumes, one per share.
    inputBinding: {prefix: --identities}
  references:
    type: ["null", {type: array, items: {type: array, items: File}}]
    doc: Masks by readers, drawn in green; a list per batch.
    inputBinding: {prefix: --references}
  overlays_per_series:
    type: int?
    doc: Overlays per series at most, spread evenly over its marked slices; 12 if not given.
    inputBinding: {prefix: --overlays}
  segmentation:
    type: string
    doc: "Form of the DICOM SEG: binary, labelmap or both."
    default: binary
    inputBinding: {prefix: --segmentation}
  captures:
    type: boolean
    doc: Write the overlays as DICOM Secondary Capture too.
    default: false
    inputBinding: {prefix: --captures}
  nifti:
    type: boolean
    doc: Write NIfTI copies of volumes and masks too.
    default: false
    inputBinding: {prefix: --nifti}
outputs:
  segmentations:
    type: Directory
    doc: One DICOM SEG per series, which references the source series.
    outputBinding: {glob: segmentations}
  measurements:
    type: Directory
    doc: One DICOM SR (TID 1500) per study, volumes in mm³, diameters in mm, mean and deviation in HU.
    outputBinding: {glob: measurements}
  overlays:
    type: Directory
    doc: "PNG per slice of interest: reference green, prediction red, intersection yellow."
    outputBinding: {glob: overlays}
  nodules:
    type: File
    doc: One row per nodule found, volume in mm³, diameters and centre in mm, mean and deviation in HU.
    format: edam:format_3752
    outputBinding: {glob: nodules.csv}
  key_images:
    type: Directory?
    doc: The overlays as DICOM Secondary Capture, where asked for.
    outputBinding: {glob: captures}
  copies:
    type: Directory?
    doc: NIfTI copies of volumes and masks, where asked for.
    outputBinding: {glob: nifti}
  run_record:
    type: File
    doc: Who did what, where, when; times in seconds, sizes in bytes.
    format: edam:format_3464
    outputBinding: {glob: export.run.json}
