cwlVersion: v1.2
class: Workflow
doc: One file to a site and back; for site_transfers.py.
inputs: {original: File}
steps:
  copy:
    run:
      class: CommandLineTool
      baseCommand: [cp]
      inputs: {original: {type: File, inputBinding: {position: 1}}}
      arguments: [{valueFrom: copied, position: 2}]
      outputs: {copied: {type: File, outputBinding: {glob: copied}}}
    in: {original: original}
    out: [copied]
outputs:
  copied: {type: File, outputSource: copy/copied}
