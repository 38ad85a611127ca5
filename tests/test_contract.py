import sys
from pathlib import Path

import pytest
from grpc_tools import protoc

PROTO = Path(__file__).parents[1] / "proto"
SOURCE = PROTO / "nst" / "v1" / "style_transfer.proto"


def test_the_committed_stubs_are_those_of_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    assert protoc.main(["protoc", f"--proto_path={PROTO}", *outputs, str(SOURCE)]) == 0
    generated = sorted((tmp_path / "nst" / "v1").iterdir())
    assert len(generated) == 4
    for file in generated:
        assert file.read_text() == (SOURCE.parent / file.name).read_text(), f"{file.name} is outdated: make proto"
