"""Serves model folders over HTTP, dense and sparse side by side. Imports no torch."""

import os

# ONNX Runtime tells Microsoft about the machine from its first import on, unless told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
