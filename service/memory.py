"""How a process that serves gives memory back, by variables that are read before it starts.

glibc hands what is large straight back to the system, but raises its idea of large whenever
something is freed, up to 32 MiB; after that, what a model took stays with each thread that has
opened one. With a fixed bound, ten exchanges of the models end at 1.4 times the memory of one set
and not at 2.4 times (`tests/faults/reloads.py`). Other C libraries do not know the variable.
"""

MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
