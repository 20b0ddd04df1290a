"""The stability quantities that the code of the Semantic Focus authors records (arXiv 2506.14095),
by task: the 75th, 90th, 95th and 100th percentile, of the separation the 25th, 10th, 5th and 0th.

The dispersion is that of full attention, the others are those of top-5, each of one trained model.
"""

from __future__ import annotations

RECORDED: dict[str, dict[str, tuple[float, float, float, float]]] = {
    "listops": {
        "dispersion": (8.61, 18.5, 29.4, 87.8),
        "heavy_dispersion": (3.51, 6.74, 9.67, 28.2),
        "separation": (0.016, 0.005, 0.002, 1e-9),
    },
    "parity": {
        "dispersion": (8.30, 10.1, 11.2, 19.4),
        "heavy_dispersion": (2.31, 3.13, 3.78, 9.16),
        "separation": (0.062, 0.022, 0.011, 1e-6),
    },
    "even-pairs": {
        "dispersion": (2.03, 4.73, 9.44, 14.6),
        "heavy_dispersion": (1.03, 2.84, 5.50, 8.25),
        "separation": (0.009, 0.003, 0.002, 3e-8),
    },
    "missing-duplicates": {
        "dispersion": (4.63, 9.25, 17.1, 23.9),
        "heavy_dispersion": (2.36, 4.25, 4.88, 10.5),
        "separation": (0.018, 0.006, 0.003, 1e-7),
    },
}
