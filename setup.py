"""What pyproject.toml cannot say: the native kernel, which is left out where no C++ compiler is."""

from setuptools import Extension, setup

ENGINE = "service/nst_service/engine"

setup(
    ext_modules=[
        Extension(
            "nst_service.engine._winograd",
            sources=[f"{ENGINE}/native/winograd.cpp"],
            depends=[f"{ENGINE}/native/{name}.h" for name in ("winograd", "direct", "pooling", "arena")],
            extra_compile_args=["-O3", "-std=c++17", "-fopenmp"],
            extra_link_args=["-fopenmp"],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
