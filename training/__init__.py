"""Fine-tunes a DistilBERT-architecture classifier with sparse attention, and measures it."""

import os

# The libraries tell their makers about the machine from their first import on, unless told not to.
for variable in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(variable, "1")
