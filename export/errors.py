"""Errors of the export stage. The message is the one line that the command line prints.

ExportError
├── ModelFolderError   a model folder that is missing, incomplete, altered or of another version
├── DeviceError        a device that a model cannot run on
└── ParityError        an exported model that does not compute what the checkpoint computes
"""


def first_line(error: BaseException) -> str:
    """What a library's error says, in a line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class ExportError(Exception):
    """Base of everything that export reports to its user."""


class ModelFolderError(ExportError):
    """A model folder that is missing, incomplete, altered or of another version."""


class DeviceError(ExportError):
    """A device that a model cannot run on."""


class ParityError(ExportError):
    """An exported model that does not compute what the checkpoint computes."""
