"""Virtual environments of the programs that nst is compared with. They are made once and kept in a cache."""

import hashlib
import re
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path


class InstallationError(Exception):
    """A program could not be installed. The message says why."""


def python_with(name: str, requirements: Sequence[str], cache: Path) -> Path:
    """Return the interpreter of an environment with a program from PyPI, and make the environment if necessary.

    pip installs the program without its dependencies. These, torch above all, come from the environment of this
    process: times are comparable only with the same torch, and each torch takes 5 GB. A package of the environment
    itself hides a shared one.

    Args:
        name: name of the environment.
        requirements: packages to install, with their versions.
        cache: folder of all environments.

    Raises:
        InstallationError: pip failed.
    """
    shared = sysconfig.get_path("purelib")
    key = hashlib.sha256("\n".join([sys.version, shared, *requirements]).encode()).hexdigest()[:8]
    folder = cache / f"{name.replace(' ', '-')}-{key}"
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists():
        print(f"Installing {', '.join(requirements)} ...", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*command, *requirements], check=False, capture_output=True, text=True)
        if done.returncode:
            raise InstallationError(f"pip install failed: {last_line(done.stderr)}")
        # Only after pip has run: it must not take shared packages for installed ones.
        (_site_packages(folder) / "shared.pth").write_text(f"{shared}\n")
        ready.touch()
    return python


def last_line(output: str) -> str:
    """Return the last line that is not empty, without folders. It is where programs say why they failed."""
    line = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "no message")
    return re.sub(r"(/[^\s/]+)+/", "", line)


def _site_packages(folder: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder), "platbase": str(folder)}))
