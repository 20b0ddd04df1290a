"""Errors of the training stage. The message is the one line that the command line prints.

TrainingError
├── PatternError    a pattern name or number that makes no sense
├── PruningError    a pruning schedule that makes no sense
├── DataError       a data set that cannot be read or trained on
├── BaseModelError  a base model that cannot be loaded
├── RunError        a run folder that is missing, incomplete or belongs to other settings
└── StudyError      a study that cannot be run or reported as asked (training/study/errors.py)
"""


def first_line(error: BaseException) -> str:
    """What a library's error says, in a line."""
    return (str(error).strip() or repr(error)).splitlines()[0].rstrip()


class TrainingError(Exception):
    """Base of everything that training reports to its user."""


class PatternError(TrainingError, ValueError):
    """An attention pattern that makes no sense."""


class PruningError(TrainingError, ValueError):
    """A pruning schedule that makes no sense, or does not fit its model."""


class DataError(TrainingError, ValueError):
    """A data set that cannot be read or trained on."""


class BaseModelError(TrainingError):
    """A base model that cannot be loaded."""


class RunError(TrainingError):
    """A run folder that is missing, incomplete, or belongs to other settings."""
