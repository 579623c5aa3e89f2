"""tok1d: a notebook-centric research workbench for 1D image tokenization."""

import os

__version__ = "0.1.0"

# Before torch is imported: its OpenMP threads wait for each other by spinning, and on a machine with other
# work that makes a training step in a notebook kernel ten times slower (2 cores, one busy: 3.8 steps/s with
# this, 0.4 without; both idle: no difference).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
