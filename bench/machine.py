"""A description of the machine that a benchmark ran on, without anything that identifies it."""

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil
import torch


def describe() -> dict[str, str]:
    """Return the properties of the machine by their names."""
    return {
        "Date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "Processor": _processor(),
        "Cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "Memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "Vector instructions": torch.backends.cpu.get_cpu_capability(),
        "Software": f"Python {platform.python_version()}, torch {torch.__version__}, nst {version('nst-stylize')}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
