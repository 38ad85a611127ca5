import pytest
from nst_service.addresses import AddressError, check_exposure, is_loopback

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
