"""The sources of the native kernel."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
from nst_service.engine import native

_SOURCES = Path(native.__file__).parent
_COMPILER = shutil.which("g++")
_PYTHON = Path(sysconfig.get_path("include"))


@pytest.mark.skipif(_COMPILER is None, reason="there is no g++")
@pytest.mark.skipif(not (_PYTHON / "Python.h").exists(), reason="Python's headers are not installed")
@pytest.mark.parametrize("header", sorted(path.name for path in _SOURCES.glob("*.h")))
def test_a_header_compiles_alone(header: str, tmp_path: Path):
    # Twice, because a header may be included by several others.
    source = tmp_path / "alone.cpp"
    source.write_text(f'#include "{header}"\n#include "{header}"\n')
    command = [str(_COMPILER), "-std=c++17", "-fopenmp", "-fsyntax-only", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, f"-I{_SOURCES}", f"-I{_PYTHON}", str(source)], check=True)


def test_what_is_compiled_several_times_is_no_header():
    included = [line.split('"')[1] for line in (_SOURCES / "convolution.inc").read_text().splitlines() if '"' in line]
    assert [name for name in included if name.endswith(".inc")]
    for path in _SOURCES.glob("*.inc"):
        assert "#pragma once" not in path.read_text()
