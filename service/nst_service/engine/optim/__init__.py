"""The optimisation: transfers step by step, optimisers, and the snapshots that they go on from."""
