import sys
from pathlib import Path

import pytest
from grpc_tools import protoc

PROTO = Path(__file__).parents[1] / "proto"
SOURCE = PROTO / "nst" / "v1" / "style_transfer.proto"
_WELL_KNOWN = Path(protoc.__file__).parent / "_proto"
"""Where `python -m grpc_tools.protoc` finds what comes with protobuf."""


def test_the_committed_stubs_are_those_of_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    assert protoc.main(["protoc", f"--proto_path={PROTO}", f"--proto_path={_WELL_KNOWN}", *outputs, str(SOURCE)]) == 0
    generated = sorted((tmp_path / "nst" / "v1").iterdir())
    assert len(generated) == 4
    for file in generated:
        assert file.read_text() == (SOURCE.parent / file.name).read_text(), f"{file.name} is outdated: make proto"
