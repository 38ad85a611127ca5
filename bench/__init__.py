"""Benchmarks: everything that is timed, and nothing else."""
