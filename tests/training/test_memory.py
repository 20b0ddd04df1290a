"""What a training frees stays with it: seen by the pages that the system has to hand out."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys
import torch
from training.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
torch.set_num_threads(1)
def faults():
    torch.zeros(12_000_000)  # 48 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = [faults() for _ in range(40)][-1]  # the first few find no place that is free
print((faults() - before))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has this setting")
def test_a_large_tensor_takes_the_memory_of_the_last_one() -> None:
    def faults(mode: str) -> int:
        command = [sys.executable, "-c", _FAULTS, mode]
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    page = 48_000_000 // 4096
    # Where pages are huge there are fewer faults, but not none.
    assert faults("leave") > page / 600
    assert faults("keep") < page / 600
