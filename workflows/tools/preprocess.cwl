cwlVersion: v1.2
class: CommandLineTool
id: preprocess
label: DICOM studies to volumes, training slices and an identity map
doc: |
  The only step that reads the user's DICOM. What it hands on holds pixels, geometry relative to the first voxel and
  pseudonyms; the identity map holds the rest and stays on the laptop.
$namespaces: {edam: "http://edamontology.org/"}
baseCommand: [slicestream, preprocess]
hints:
  DockerRequirement: {dockerPull: "slicestream/train:0.1.0"}
  ResourceRequirement: {coresMin: 1, ramMin: 2048}
inputs:
  cohort:
    type: Directory
    doc: Folder of DICOM files in any nesting; with dataset.csv and PNG masks (UniToChest layout), or annotations of another format, if annotated.
    inputBinding: {prefix: --cohort}
  pseudonym_key:
    type: File
    doc: The site's secret key of the pseudonyms, text of one line. Reused over runs, never leaves the laptop.
    inputBinding: {prefix: --pseudonym-key}
  share:
    type: string
    doc: Which part of the cohort this job takes, "i/n" with i from 1 to n; whole patients, balanced by work.
    default: 1/1
    inputBinding: {prefix: --share}
  negatives:
    type: float
    doc: Share of the slices without a mask that training gets beside all those with one, 0 to 1.
    default: 0.1
    inputBinding: {prefix: --negatives}
  backgrounds:
    type: Directory?
    doc: Scans of other patients to train on only; what has no mask in them is shown as background. Share 1 takes them.
    inputBinding: {prefix: --backgrounds}
  exclude:
    type: File?
    doc: PatientIDs to leave out, one per line.
    inputBinding: {prefix: --exclude}
  strict:
    type: boolean
    doc: Stop where CT is found that cannot be used, instead of setting it aside.
    default: false
    inputBinding: {prefix: --strict}
  annotations:
    type: Directory?
    doc: Folder to look for annotations in, and nowhere else; without it they are looked for in the cohort.
    inputBinding: {prefix: --annotations}
  no_annotations:
    type: boolean
    doc: Look for no annotations; what was drawn on new studies is nothing to train on or to score with.
    default: false
    inputBinding: {prefix: --no-annotations}
  structure:
    type: string?
    doc: Name or pattern of the structure to take, of formats that have several.
    inputBinding: {prefix: --structure}
  consensus:
    type: string
    doc: "How LIDC-IDRI's readers become one: majority, any, all, level-N (N readers at least) or staple."
    default: majority
    inputBinding: {prefix: --consensus}
  minimum_readers:
    type: int
    doc: Nodules that fewer readers drew are left out.
    default: 1
    inputBinding: {prefix: --minimum-readers}
outputs:
  volumes:
    type: File[]
    doc: One volume per series, HU, sorted by file name.
    outputBinding: {glob: "*.volume"}
  references:
    type: File[]
    doc: One reference mask per annotated series, sorted by file name.
    outputBinding: {glob: "*.reference"}
  slices:
    type: File
    doc: The slices that training may use, with their masks.
    outputBinding: {glob: "training-*.slices"}
  index:
    type: File
    doc: What the volumes of this share hold, in the order of `volumes`; counts of slices, sizes in bytes.
    format: edam:format_3464
    outputBinding: {glob: "series-*.json"}
  identity:
    type: File
    doc: Pseudonym to pixel-less source headers, mode 0600. Stays on the laptop.
    outputBinding: {glob: "source-*.identity"}
  manifest:
    type: File
    doc: What was found, and why what became no volume was set aside; names files and UIDs, mode 0600. Stays on the laptop.
    format: edam:format_3464
    outputBinding: {glob: "manifest-*.json"}
  run_record:
    type: File
    doc: Who did what, where, when; times in seconds, sizes in bytes.
    format: edam:format_3464
    outputBinding: {glob: "preprocess-*.run.json"}
