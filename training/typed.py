"""The command that runs, as reports show it."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path


def typed() -> str:
    """The command as it was typed, but for folders that are nobody's business in a report: absolute
    paths are shown from the working folder on, or by their last component."""
    here = Path.cwd()

    def shown(found: re.Match[str]) -> str:
        path = Path(os.path.normpath(found[2]))
        return found[1] + str(path.relative_to(here) if here in path.parents else path.name)

    words = (re.sub(r"(^|=|:(?!//))(/.*)", shown, word, flags=re.DOTALL) for word in sys.argv[1:])
    return shlex.join(["crisp", *words])
