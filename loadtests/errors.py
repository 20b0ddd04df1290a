"""Errors of the load tests."""


class LoadTestError(Exception):
    """Base of everything that a load test reports to its user."""
