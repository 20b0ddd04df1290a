"""`crisp bench`: the engine against stock ONNX Runtime, interleaved in one process.

weights.py    the parameters, read back from a packed graph
baseline.py   the same weights as stock ONNX Runtime serves them: fp32 and int8
workloads.py  lengths and batches as in SST-2 and IMDb
contenders.py opens a session for each: stock fp32, stock int8, the models
measure.py    runs every contender on the same batches, in turn
report.py     medians, ratios, the table and the JSON
command.py    the command
"""
