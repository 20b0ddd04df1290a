"""Synthetic tasks of the Semantic Focus paper (arXiv 2506.14095), one file each."""
