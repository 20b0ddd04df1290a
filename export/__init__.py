"""Turns a run folder into a packed, quantised ONNX model folder that runs on our operators."""
