"""The names of the comparisons that are no plain request."""

UNDISTURBED = "undisturbed"
"""The job that is killed elsewhere, on a server that is left alone."""

KILLED = "killed-and-resumed"
"""The same job, when its server was killed with SIGKILL and another one of the same checkout has resumed it."""

TAKEN_OVER = "taken-over"
"""The same job, begun by a server of the other checkout and resumed by one of this checkout."""

INTERRUPTED_STORE = "interrupted-store"
"""Folder with the data directory that the killed server left, among the results of a checkout."""
