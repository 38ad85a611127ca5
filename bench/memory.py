"""The memory of processes."""

import contextlib
from pathlib import Path


def peak_bytes(process: int | str = "self") -> int:
    """Return the most memory in bytes that a process has had at once (its high-water mark; 0 outside of Linux)."""
    return _status_bytes(process, "VmHWM")


def resident_bytes(process: int | str = "self") -> int:
    """Return the memory in bytes that a process has now (0 outside of Linux)."""
    return _status_bytes(process, "VmRSS")


def reset_peak(process: int | str = "self") -> None:
    """Set the high-water mark of a process to the memory that it has now, where Linux allows that."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{process}/clear_refs").write_text("5")


def _status_bytes(process: int | str, field: str) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    values = [line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:")]
    return 1024 * int(values[0]) if values else 0
