cwlVersion: v1.2
class: CommandLineTool
doc: Copies a file, so that all the time a run takes is the engine's own.
baseCommand: [cp]
inputs:
  original: {type: File, inputBinding: {position: 1}}
  name: {type: string, default: copied, inputBinding: {position: 2}}
outputs:
  copied: {type: File, outputBinding: {glob: $(inputs.name)}}
