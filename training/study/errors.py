"""Errors of the studies. Like all of training, they reach the user as one line.

TrainingError
└── StudyError    a study that cannot be run or reported as asked
"""

from training.errors import TrainingError


class StudyError(TrainingError, ValueError):
    """A study that cannot be run or reported as asked."""
