"""Sparse attention patterns in plain torch: the reference that later stages are held to."""
