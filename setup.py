"""Build the native kernel, which pyproject.toml cannot describe. It is left out where there is no C++ compiler."""

from pathlib import Path

from setuptools import Extension, setup

# Relative to this file: setuptools takes no absolute paths.
NATIVE = Path("service/nst_service/engine/native")

setup(
    ext_modules=[
        Extension(
            "nst_service.engine.native._extension",
            sources=[str(path) for path in sorted(NATIVE.glob("*.cpp"))],
            depends=[str(path) for pattern in ("*.h", "*.inc") for path in sorted(NATIVE.glob(pattern))],
            extra_compile_args=["-O3", "-std=c++17", "-fopenmp", "-fvisibility=hidden"],
            extra_link_args=["-fopenmp"],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
