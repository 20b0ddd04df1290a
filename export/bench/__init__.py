"""`crisp bench`: the engine against stock ONNX Runtime and its peers, interleaved in one process.

weights.py        the parameters, read back from a packed graph
positions.py      models that take longer texts than they were trained for
baseline.py       the same weights as stock ONNX Runtime serves them: fp32 and int8
peers.py          other runtimes with the same weights, where they are installed
openvino_peer.py  OpenVINO, fp32 and int8
torch_peer.py     torch with its own fused attention
texts.py          real texts as token ids: calibration and accuracy
workloads.py      lengths and batches as in SST-2 and IMDb, or of one length
memory.py         how much there is and how much a run takes
contenders.py     opens a session for each: stock, peers, the models
measure.py        runs every contender on the same batches, in turn
roofline.py       the peak of this machine, and the multiply-adds of a text
accuracy.py       accuracy of every contender
peer_models.py    the weights as other servers want them
profile.py        the share of each operator
report.py         medians, ratios, rates, the JSON
tables.py         the same for the terminal
picture.py        the same as a picture
inputs.py         what the command is given, checked before any long work
command.py        the command
"""
