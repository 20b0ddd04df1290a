"""The model folders that are held at once, by name: at least one, usually `dense` and `sparse`.

Every sub-folder is a variant and its name is the variant's (hidden ones, and __pycache__, aside).
One bad folder stops the start with a line that names it: a service that silently lacks a model
would be worse.

    variants = Variants.load(Path("service/models"))
    variants.default.predict(["Well made."])
    variants["dense"].manifest.measured
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from export.errors import DeviceError, ModelFolderError
from export.gpu import Device, library_for
from export.manifest import ModelFolder
from export.op_library import OpLibrary
from service.engine import Engine
from service.errors import ModelsError
from service.model_folders import default_of, model_folders

BASELINE_VARIANT = "dense"  # what the others are compared with, where there is one

logger = logging.getLogger("crisp.service")


class Variants(Mapping[str, Engine]):
    """Engines by variant name, in the order of their names."""

    def __init__(self, engines: Mapping[str, Engine], library: OpLibrary) -> None:
        if not engines:
            raise ModelsError("no model folder given; make one with `crisp export`")
        self._engines = dict(sorted(engines.items()))
        self.library = library

    @classmethod
    def load(cls, models: Path, *, threads: int | None = None, device: Device = "cpu") -> Variants:
        """Opens and warms up every model folder in `models` on `device`.

        A folder that is a model folder itself counts as the only variant. Raises ModelsError where
        there is none, or where one of them is missing a file, altered, or does not run on `device`.
        """
        folders = model_folders(models)

        def opened(path: Path) -> Engine:
            folder = ModelFolder.load(path)
            library = library_for(device, folder.manifest.precision)
            engine = Engine(folder, threads=threads, library=library)
            engine.warm_up()
            return engine

        # At once: hashing and opening use one core each, and the start of a service waits for it.
        with ThreadPoolExecutor(min(len(folders), os.cpu_count() or 1)) as pool:
            try:
                engines = dict(zip(folders, pool.map(opened, folders.values()), strict=True))
            except (DeviceError, ModelFolderError) as error:
                raise ModelsError(str(error)) from error
        library = engines[default_of(engines)].library
        if not library.available:
            logger.warning("the compiled operators are not in use: %s", library.reason)
        return cls(engines, library)

    def log_devices(self) -> None:
        """Logs where each of them runs, and why there."""
        for name, engine in self.items():
            where = engine.library
            logger.info("%s runs on device %s: %s", name, where.device, where.reason)

    @property
    def default_name(self) -> str:
        return default_of(self._engines)

    @property
    def baseline_name(self) -> str:
        return BASELINE_VARIANT if BASELINE_VARIANT in self._engines else self.default_name

    @property
    def default(self) -> Engine:
        return self._engines[self.default_name]

    def __getitem__(self, name: str) -> Engine:
        return self._engines[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._engines)

    def __len__(self) -> int:
        return len(self._engines)
