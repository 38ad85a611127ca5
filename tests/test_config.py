from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from nst_service import cli
from nst_service.config import ServerConfig
from nst_service.reloaded import SettingError

PATHS = ("tls_certificate", "tls_key", "tls_client_ca", "tokens", "weights", "data_dir", "blobs")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServerConfig]:
    """The configurations that would be served."""
    configs: list[ServerConfig] = []
    monkeypatch.setattr(cli, "_serve", configs.append)
    return configs


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(cli.main, arguments)


@pytest.mark.parametrize("name", PATHS)
def test_a_tilde_is_the_home_directory_in_every_setting_with_a_path(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/nst")
    config = ServerConfig(**{name: "~/file"})
    assert getattr(config, name) == "/home/nst/file"
    assert getattr(ServerConfig(**{name: "a~b"}), name) == "a~b"


def test_a_tilde_is_the_home_directory_in_the_path_of_a_socket(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/nst")
    assert ServerConfig(address="unix:~/nst.sock").address == "unix:/home/nst/nst.sock"


def test_the_home_directory_of_nobody_is_refused_by_the_name_of_the_setting(served: list[ServerConfig]):
    with pytest.raises(SettingError, match="data_dir: the home directory of '~no-such-user/nst' is not known"):
        ServerConfig(data_dir="~no-such-user/nst")
    done = run("--data-dir", "~no-such-user/nst")
    assert (done.exit_code, "data_dir: the home directory" in done.stderr) == (2, True)
    assert served == []


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_configuration_file_may_begin_with_a_byte_order_mark(tmp_path: Path, served: list[ServerConfig], mark: bytes):
    path = tmp_path / "nst.toml"
    path.write_bytes(mark + 'max_queued = 3\ndata_dir = "/srv/größe"\n'.encode())
    done = run("--config", str(path))
    assert done.exit_code == 0, done.output
    assert (served[0].max_queued, served[0].data_dir) == (3, "/srv/größe")


def test_the_configuration_file_may_be_in_the_home_directory(
    tmp_path: Path, served: list[ServerConfig], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "nst.toml").write_text("max_queued = 3\n")
    assert run(NST_CONFIG="~/nst.toml").exit_code == 0
    assert served[0].max_queued == 3
