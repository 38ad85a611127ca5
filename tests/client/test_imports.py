import subprocess
import sys

import nst_client
import pytest

HEAVY = ("torch", "torchvision", "PIL", "numpy", "matplotlib", "cv2", "av", "nst_service")


@pytest.mark.parametrize("module", ["nst_client", "nst_client.cli", "nst_client.media"])
def test_the_client_pulls_nothing_heavy(module):
    code = f"import sys, {module}; print(*({HEAVY!r} & sys.modules.keys()))".replace(repr(HEAVY), repr(set(HEAVY)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_public_name_exists():
    assert [name for name in nst_client.__all__ if not hasattr(nst_client, name)] == []


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert nst_client.__version__ == version("nst-stylize")
