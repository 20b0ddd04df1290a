"""Turns a run folder into a packed, quantised ONNX model folder that runs on our operators."""

import os

# ONNX Runtime tells Microsoft about the machine from its first import on, unless told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
