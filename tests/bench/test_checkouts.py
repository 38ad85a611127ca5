import os
from pathlib import Path

import pytest

from bench.checkouts import Checkout, CheckoutError, this_and


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout whose kernel has not been built."""
    native = tmp_path / "service" / "nst_service" / "engine" / "native"
    native.mkdir(parents=True)
    for name in ("_kernel.pyi", "kernel.cpp", "layer.h"):
        (native / name).touch()
    return Checkout("other", tmp_path)


def build(checkout: Checkout, *, before_the_sources: bool = False) -> None:
    native = checkout.root / "service" / "nst_service" / "engine" / "native"
    (native / "_kernel.abi3.so").touch()
    os.utime(native / "_kernel.abi3.so", (0, 0) if before_the_sources else None)


def test_a_checkout_has_the_native_kernel_when_it_is_built(checkout: Checkout):
    assert not checkout.has_native_kernel()
    build(checkout)
    assert checkout.has_native_kernel()


def test_a_kernel_that_no_module_describes_does_not_count(checkout: Checkout):
    # Such as one that an earlier commit has left in the same folder.
    (checkout.root / "service" / "nst_service" / "_old.abi3.so").touch()
    assert not checkout.has_native_kernel()


def test_an_outdated_kernel_is_refused(checkout: Checkout):
    build(checkout, before_the_sources=True)
    with pytest.raises(CheckoutError, match="outdated"):
        checkout.has_native_kernel()


def test_a_folder_without_nst_is_no_checkout(tmp_path: Path):
    with pytest.raises(CheckoutError, match="no checkout of nst"):
        this_and(tmp_path)
