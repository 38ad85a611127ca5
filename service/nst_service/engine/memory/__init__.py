"""The memory of a transfer: how many bytes it holds, and what fits into a given memory."""
