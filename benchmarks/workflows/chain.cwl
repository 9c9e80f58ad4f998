cwlVersion: v1.2
class: Workflow
doc: Ten steps, each of the one before.
inputs: {original: File}
steps:
  copy_1: {run: copy_tool.cwl, in: {original: original}, out: [copied]}
  copy_2: {run: copy_tool.cwl, in: {original: copy_1/copied}, out: [copied]}
  copy_3: {run: copy_tool.cwl, in: {original: copy_2/copied}, out: [copied]}
  copy_4: {run: copy_tool.cwl, in: {original: copy_3/copied}, out: [copied]}
  copy_5: {run: copy_tool.cwl, in: {original: copy_4/copied}, out: [copied]}
  copy_6: {run: copy_tool.cwl, in: {original: copy_5/copied}, out: [copied]}
  copy_7: {run: copy_tool.cwl, in: {original: copy_6/copied}, out: [copied]}
  copy_8: {run: copy_tool.cwl, in: {original: copy_7/copied}, out: [copied]}
  copy_9: {run: copy_tool.cwl, in: {original: copy_8/copied}, out: [copied]}
  copy_10: {run: copy_tool.cwl, in: {original: copy_9/copied}, out: [copied]}
outputs:
  copied: {type: File, outputSource: copy_10/copied}
