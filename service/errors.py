"""Errors of the service."""


class ServiceError(Exception):
    """Base of everything that the service reports to the person who starts it."""
