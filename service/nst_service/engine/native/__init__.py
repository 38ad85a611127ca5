"""The native kernel: convolutions, pooling and the memory of features in C++.

`extension` is the compiled module, or None where none was built for this version of nst. Then operations of torch take
its place, and are slower.
"""

import warnings

# Before the extension, which then runs on the threads of torch's OpenMP.
import torch  # noqa: F401

try:
    from nst_service.engine.native import _extension as extension
except ImportError:
    extension = None  # type: ignore[assignment]

_INTERFACE = 1
"""The version of the functions of `_extension` that this version of nst calls: `INTERFACE` of extension.cpp."""

if extension is not None and extension.INTERFACE != _INTERFACE:
    warnings.warn(
        "the native kernel was built for another version of nst and is not used: run `make setup` to build it again",
        RuntimeWarning,
        stacklevel=2,
    )
    extension = None  # type: ignore[assignment]
