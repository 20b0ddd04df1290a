"""Sparse attention patterns as plain torch: the reference that every later stage is held against."""
