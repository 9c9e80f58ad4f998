cwlVersion: v1.2
class: CommandLineTool
id: view
label: Volumes and masks to a folder that shows them in a browser
doc: No identity is in it, but every voxel, and what readers drew; so it runs on the laptop only.
$namespaces: {edam: "http://edamontology.org/"}
baseCommand: [slicestream, view]
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
  references:
    type: ["null", {type: array, items: {type: array, items: File}}]
    doc: Masks by readers, drawn in green; a list per batch.
    inputBinding: {prefix: --references}
  viewer_mb:
    type: float?
    doc: Size in MB that the series may add up to, 1000 if not given; those left out are named.
    inputBinding: {prefix: --most-mb}
outputs:
  viewer:
    type: Directory
    doc: A page, index.html, and one script file per series with its voxels, masks and nodules.
    outputBinding: {glob: viewer}
  run_record:
    type: File
    doc: Who did what, where, when; times in seconds, sizes in bytes.
    format: edam:format_3464
    outputBinding: {glob: view.run.json}
