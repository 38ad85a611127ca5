import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[2] / "client"


@pytest.fixture
def copy(tmp_path):
    """A copy of the script and of both clients, in which a test may write."""
    (tmp_path / "nst_client").mkdir()
    for name in ("generate_sync.py", "nst_client/aio.py", "nst_client/client.py"):
        shutil.copy(CLIENT / name, tmp_path / name)
    # Ruff looks there for its settings and for the package that a file belongs to.
    shutil.copy(CLIENT.parent / "pyproject.toml", tmp_path)
    (tmp_path / "nst_client" / "__init__.py").touch()
    assert generate(tmp_path, "--check").returncode == 0
    return tmp_path


def generate(folder, *arguments):
    command = [sys.executable, folder / "generate_sync.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_synchronous_client_is_what_is_generated_from_the_asynchronous_one():
    done = generate(CLIENT, "--check")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["aio.py", "client.py"])
def test_a_client_that_was_edited_alone_is_stale(copy, name):
    path = copy / "nst_client" / name
    path.write_text(path.read_text().replace("READY_PAUSE)", "2 * READY_PAUSE)"))
    before = (copy / "nst_client" / "client.py").read_bytes()
    done = generate(copy, "--check")
    assert done.returncode == 1
    assert "client.py is stale: run `make sync-client`" in done.stderr
    assert (copy / "nst_client" / "client.py").read_bytes() == before


def test_a_stale_client_is_written_anew(copy):
    path = copy / "nst_client" / "client.py"
    path.write_text("")
    assert generate(copy).returncode == 0
    assert path.read_bytes() == (CLIENT / "nst_client" / "client.py").read_bytes()


def test_a_substitution_that_applies_nowhere_is_an_error(copy):
    path = copy / "nst_client" / "aio.py"
    path.write_text(path.read_text().replace("for one event loop", "for an event loop"))
    done = generate(copy)
    assert done.returncode != 0
    assert "'for one event loop' is nowhere in aio.py" in done.stderr


def test_the_synchronous_client_says_nothing_of_asyncio():
    _, code = (CLIENT / "nst_client" / "client.py").read_text().split("\n", maxsplit=1)
    assert re.findall(r"(?i)async\w*|\bawait\w*|\baio\b|event loop", code) == []
