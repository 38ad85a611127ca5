from types import SimpleNamespace
from typing import Any

import pytest
from nst_service.jobs.quotas import ANYONE
from nst_service.rpc.auth import Authenticator


def owner(**names: list[bytes]) -> Any:
    context = SimpleNamespace(auth_context=lambda: names, invocation_metadata=lambda: ())
    return Authenticator().owner(context)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"peer_dns": [b"alice"], "x509_common_name": [b"bob"]}, "alice"),
        ({"peer_dns": [b"a.example", b"b.example"]}, "a.example, b.example"),
        ({"x509_common_name": [b"alice"]}, "CN:alice"),
        ({"peer_email": [b"alice"]}, "email:alice"),
        ({"peer_uri": [b"spiffe://alice"], "peer_ip": [b"10.0.0.1"]}, "URI:spiffe://alice, IP:10.0.0.1"),
    ],
)
def test_names_of_different_kinds_are_different_owners(names: dict[str, list[bytes]], expected: str):
    assert owner(**names).name == expected


@pytest.mark.parametrize("names", [{}, {"x509_common_name": [b""]}])
def test_a_caller_without_a_name_is_anyone(names: dict[str, list[bytes]]):
    assert owner(**names) is ANYONE
