"""Serves model folders over HTTP, dense and sparse side by side. Imports no torch."""
