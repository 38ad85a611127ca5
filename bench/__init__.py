"""Benchmarks: everything that is timed, and nothing else."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The root of this checkout."""
