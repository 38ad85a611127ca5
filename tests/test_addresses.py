import socket
from pathlib import Path

import pytest
from nst_service.addresses import AddressError, check_address, check_exposure, is_loopback, reason_of_failure

LOOPBACK = [
    "127.0.0.1:50051",
    "127.9.9.9:0",
    "[::1]:50051",
    "localhost:50051",
    "unix:/run/nst.sock",
    "unix-abstract:nst",
]
EXPOSED = [
    "0.0.0.0:50051",
    "[::]:50051",
    "10.0.0.7:50051",
    "192.0.2.1:0",
    "nst.example:50051",
    ":50051",
    "",
    "localhost.example:1",
]


@pytest.mark.parametrize("address", LOOPBACK)
def test_an_address_of_this_machine_needs_no_encryption(address: str):
    assert is_loopback(address)
    check_exposure(address, encrypted=False, insecure=False)


@pytest.mark.parametrize("address", EXPOSED)
def test_an_address_that_others_may_reach_needs_encryption_or_an_explicit_choice(address: str):
    with pytest.raises(AddressError, match=r"set tls_certificate and tls_key .* or insecure"):
        check_exposure(address, encrypted=False, insecure=False)
    check_exposure(address, encrypted=True, insecure=False)
    check_exposure(address, encrypted=False, insecure=True)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1:65536", "127.0.0.1:115587", "localhost:-1", "localhost:http", "localhost:", "localhost", ""),
        *(":50051", "::1:50051", "http://localhost:50051", "localhost:99999999999"),
    ],
)
def test_an_address_without_a_host_or_a_possible_port_is_refused(address: str):
    with pytest.raises(AddressError, match=r"expected HOST:PORT with a port from 0 to 65535") as caught:
        check_address(address)
    assert repr(address) in str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1:65535", "[::1]:0", "nst.example:1", "unix-abstract:nst", "unix:nst"])
def test_an_address_in_its_form_is_accepted(address: str):
    check_address(address)


@pytest.mark.parametrize("form", ["unix:{}", "unix://{}"])
def test_the_socket_of_another_server_is_refused_and_left_alone(tmp_path: Path, form: str):
    path = tmp_path / "nst.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(0)
        for _ in range(3):  # Also when the queue of the other server is full.
            with pytest.raises(AddressError, match="another server listens there"):
                check_address(form.format(path))
    assert path.is_socket()


def test_the_socket_of_a_killed_server_is_free(tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "nst.sock"))
    check_address(f"unix:{tmp_path}/nst.sock")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "is not a socket"),
        ("", "is not a socket"),
        ("file/nst.sock", "Not a directory"),
    ],
)
def test_a_path_that_cannot_be_a_socket_is_refused(tmp_path: Path, name: str, message: str):
    (tmp_path / "file").write_bytes(b"precious")
    with pytest.raises(AddressError, match=message):
        check_address(f"unix:{tmp_path}/{name}")
    assert (tmp_path / "file").read_bytes() == b"precious"


def test_why_a_server_cannot_listen_is_said_as_the_system_says_it(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert "in use" in reason_of_failure(f"127.0.0.1:{other.getsockname()[1]}")
    assert "assign" in reason_of_failure("192.0.2.1:0")
    assert reason_of_failure("nst.invalid:0") not in ("", "the address was in use a moment ago")
    assert "too long" in reason_of_failure(f"unix:{tmp_path}/{'x' * 200}")
    assert "No such file" in reason_of_failure(f"unix:{tmp_path}/none/nst.sock")
