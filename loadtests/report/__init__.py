"""The report of a load test, drawn from its JSON alone: an HTML page and the same as PNGs.

report.write(results.load(file), folder, source=file)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtests.errors import LoadTestError

PAGE = "report.html"


def read_accuracy(files: Sequence[Path]) -> list[dict[str, Any]]:
    """What `crisp compare --json` says of accuracy, without its single texts.

    Raises LoadTestError where a file is not one of its results.
    """
    return [_accuracy(path) for path in files]


def write(
    content: Mapping[str, Any],
    folder: Path,
    *,
    source: Path,
    against: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Writes report.html and the pictures into `folder`, and returns their paths.

    `source` is the file that `content` came from; `against` an older document to compare with.
    Raises LoadTestError where the document is not whole.
    """
    from loadtests import files
    from loadtests.changes import changes
    from loadtests.report import page, pictures
    from loadtests.report.story import tell

    try:
        story = tell(content)
    except (KeyError, TypeError) as error:
        raise LoadTestError(f"{source} is not whole: {error!r}; measure again") from None
    found = [] if against is None else changes(content, against)
    text = page.html(story, source=source.name, changes=found, older=against)
    files.write(text, folder / PAGE)
    return [folder / PAGE, *pictures.save(story, folder)]


def _accuracy(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            "data": {key: content["data"][key] for key in ("name", "n")},
            "variants": {
                name: {"accuracy": variant["accuracy"]}
                for name, variant in content["variants"].items()
            },
            "comparisons": {
                name: {key: one[key] for key in ("baseline", "accuracy_difference", "mcnemar_p")}
                for name, one in content["comparisons"].items()
            },
        }
    except OSError as error:
        raise LoadTestError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LoadTestError(f"{path} is no result of `crisp compare --json`") from None
