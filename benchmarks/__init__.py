"""Measurements and one-off studies, each a command: `python -m benchmarks.step`. Not part of the package."""
