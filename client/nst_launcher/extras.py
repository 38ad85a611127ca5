"""Messages about libraries that come with an extra of the distribution."""


def missing_library(error: ModuleNotFoundError) -> str:
    """Return which library the server lacks, and what to install."""
    return f"nst-server needs {error.name}, which is not installed: pip install 'nst-stylize[server]'"
