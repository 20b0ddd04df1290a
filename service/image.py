"""What `bentoml build` puts around the sources: pinned packages, and an image that runs as nobody
special, has no compiler and tells whether it is healthy.

The lock is the set of versions installed here, which `make setup` takes from constraints.txt, cut
down to what the base install needs. BentoML's own lock would ask the package index anew, and
write that index's address, credentials included, into the bento. The lock has the onnxruntime that
runs on CPUs alone, which is a fifth of the other's size and as fast on them. CRISP_BENTO_GPU=1
makes the image for GPUs: onnxruntime-gpu with NVIDIA's libraries, in the versions that it asks for,
and a GPU is used where the container is given one (docs/gpu.md).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from bentoml.exceptions import BentoMLException
from bentoml.images import Image
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from export.gpu import CUDA_PATH
from export.op_library import ENVIRONMENT_VARIABLE, find_op_library

logger = logging.getLogger("crisp.service")

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

GPU_VARIABLE = "CRISP_BENTO_GPU"

# Rendered into the Dockerfile as one RUN; the lines after it hold for all that follows, the
# installation of packages included. BentoML's own image would install them as root, and keep what
# was downloaded.
_INSTALL_AS_USER = (
    "pip install --no-cache-dir uv && mkdir -p /app && chown $BENTO_USER:$BENTO_USER /app\n"
    "USER $BENTO_USER\n"
    "ENV UV_NO_CACHE=1"
)
_PROBE = (
    "import os, urllib.request as r; "
    "r.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '3000') + '/readyz', timeout=4)"
)
# Rendered after the packages. What BentoML writes at run time, counters that processes share, goes
# to /tmp: all else may be read-only.
_FINISH = (
    "ORT_DISABLE_TELEMETRY=1 python -c 'import onnxruntime'\n"
    "ENV BENTOML_HOME=/tmp/bentoml\n"
    f'HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", "{_PROBE}"]'
)

_ON_GPUS = "\nENV CRISP_DEVICE=auto"


class ServingImage(Image):  # type: ignore[misc]  # bentoml finds the class at run time
    """BentoML's image, less the compiler that it installs, plus pins and the operator library."""

    def freeze(self, bento_fs: Path, *args: Any, **kwargs: Any) -> Any:
        """Called by `bentoml build` alone. Raises BentoMLException without an operator library."""
        library = find_op_library()
        if not library.available:
            if os.environ.get(ENVIRONMENT_VARIABLE, "").lower() != "none":
                raise BentoMLException(
                    f"the bento would lack the compiled operators: {library.reason}. Run "
                    f"`make ops`, or build all the same with {ENVIRONMENT_VARIABLE}=none"
                )
            logger.warning("the bento may lack the compiled operators: %s", library.reason)
        if for_gpus() and not CUDA_PATH.is_file():
            raise BentoMLException(
                f"an image for GPUs needs {CUDA_PATH}; build it with export/ops/cuda/build.sh, or "
                f"unset {GPU_VARIABLE}"
            )
        self.python_packages(*(f"{name}=={version}" for name, version in packages()))
        self.run(_FINISH + (_ON_GPUS if for_gpus() else ""))
        return super().freeze(bento_fs, *args, **kwargs)


def serving_image() -> ServingImage:
    """An image of Python on slim Debian; every package comes as a wheel."""
    return ServingImage(
        base_image=f"python:{PYTHON}-slim",
        # A distribution that BentoML knows would get build-essential and git.
        distro="none",
        python_version=PYTHON,
        commands=[_INSTALL_AS_USER],
        lock_python_packages=False,
    )


def for_gpus() -> bool:
    return os.environ.get(GPU_VARIABLE, "") not in ("", "0")


def packages() -> Iterator[tuple[str, str]]:
    """Name and version of every package of the image, but BentoML."""
    for name, version in installed("crisp"):
        if name == "onnxruntime-gpu":
            # Both are released together, under the same version.
            name = "onnxruntime-gpu[cuda,cudnn]" if for_gpus() else "onnxruntime"
        yield name, version


def installed(distribution: str) -> Iterator[tuple[str, str]]:
    """Name and version of every package that `distribution` needs here, extras aside, by name.

    BentoML itself is left out: it adds its own version to every bento.
    """
    wanted, found = [Requirement(distribution)], dict[str, str]()
    seen: set[tuple[str, str]] = set()
    while wanted:
        requirement = wanted.pop()
        name = str(canonicalize_name(requirement.name))
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            found[name] = metadata.version(name)
            for line in metadata.requires(name) or ():
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    wanted.append(needed)
    for name in ("bentoml", canonicalize_name(distribution)):
        del found[name]
    return iter(sorted(found.items()))
