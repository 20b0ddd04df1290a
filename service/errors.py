"""Errors of the service: those that a person who starts it reads, and those that a caller gets.

ServiceError         base; one line on the command line, exit code 2
├── ModelsError      no model folder, or one that does not load
├── SettingsError    a setting that is no valid value
├── KeysError        a file of API keys that cannot be read or written
├── AddressError     a host or port that cannot be listened on
├── StartError       a process that serves cannot, and says why
├── InputError       a text file that `crisp predict` cannot read
└── RequestError     what a caller of the HTTP interface did wrong: a status and a code
"""

from __future__ import annotations


class ServiceError(Exception):
    """Base of everything that the service reports to the person who starts it."""


class ModelsError(ServiceError):
    """No model folder, or one that does not load."""


class SettingsError(ServiceError):
    """A setting that is no valid value."""


class KeysError(ServiceError):
    """A file of API keys that cannot be read or written, or a name that does not fit in it."""


class AddressError(ServiceError):
    """A host or port that cannot be listened on."""


class StartError(ServiceError):
    """A process that serves cannot, and says why."""


class InputError(ServiceError):
    """A text file that `crisp predict` cannot read."""


class RequestError(ServiceError):
    """A request that is answered with an error.

    `code` is a stable word for programs, the message says to a person what was expected, what
    came and what to do, `field` names the part of the body at fault, such as `texts[3]`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field
        self.retry_after = retry_after  # seconds
