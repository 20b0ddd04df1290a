"""Puts dense and sparse under the same load, over HTTP only, and draws the result."""
