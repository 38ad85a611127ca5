import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from grpc_tools import protoc

ROOT = Path(__file__).parents[1]
PROTO = ROOT / "proto"
SOURCE = PROTO / "nst" / "v1" / "style_transfer.proto"
_WELL_KNOWN = Path(protoc.__file__).parent / "_proto"
"""The folder of the files that come with protobuf, as `python -m grpc_tools.protoc` finds it."""


def test_the_committed_stubs_are_those_of_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    assert protoc.main(["protoc", f"--proto_path={PROTO}", f"--proto_path={_WELL_KNOWN}", *outputs, str(SOURCE)]) == 0
    generated = sorted((tmp_path / "nst" / "v1").iterdir())
    assert len(generated) == 4
    for file in generated:
        assert file.read_text() == (SOURCE.parent / file.name).read_text(), f"{file.name} is outdated: make proto"


@pytest.mark.parametrize("released", sorted((PROTO / "released").iterdir()), ids=lambda path: path.stem)
def test_the_contract_still_serves_the_clients_of_a_release(released: Path):
    assert breaking_changes(ROOT, released) == []


def test_a_field_that_is_removed_from_the_contract_is_reported(tmp_path: Path):
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    changed = tmp_path / SOURCE.relative_to(ROOT)
    changed.parent.mkdir(parents=True)
    field = "  optional int64 seed = 12;\n"
    contract = SOURCE.read_text()
    assert field in contract
    changed.write_text(contract.replace(field, ""))

    (change,) = breaking_changes(tmp_path, PROTO / "released" / "v0.1.0.binpb")

    assert 'field "12" with name "seed" on message "TransferOptions" was deleted' in change


def breaking_changes(module: Path, released: Path) -> list[str]:
    """Return the report of `buf breaking`."""
    buf = Path(sys.executable).parent / "buf"
    done = subprocess.run([buf, "breaking", module, "--against", released], check=False, capture_output=True, text=True)
    assert not done.stderr
    assert done.returncode == (100 if done.stdout else 0)
    return done.stdout.splitlines()
