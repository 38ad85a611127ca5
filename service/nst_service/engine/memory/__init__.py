"""The memory of a transfer: how many bytes it holds, and what fits into the memory there is."""
