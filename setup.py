"""Builds the compiled libraries; what is not about compiling stands in pyproject.toml.

Two shared objects from the same kernels: ``_cpu.so``, the torch ops on the LibTorch stable ABI (one build serves every torch
from 2.10 on), and ``_numpy``, the NumPy module. Where there is no compiler, torch or pybind11, the package installs without
them and says so when it is imported.
"""

import importlib.util
import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HEADERS = [str(path) for folder in ("kernels", "csrc") for path in Path(folder).rglob("*.h")]
KERNELS = ["kernels/cpu/pkpo.cpp"]
# No contraction of a * b + c: the same bits on every machine.
FLAGS = ["-std=c++20", "-O3", "-fvisibility=hidden", "-ffp-contract=off", "-g0", "-Wall", "-Wextra"]
FLAGS += os.environ.get("PKPO_CXXFLAGS", "").split()
LINK_FLAGS = os.environ.get("PKPO_LDFLAGS", "").split()


def torch_library():
    import torch
    from torch.utils.cpp_extension import include_paths

    return Extension(
        "pkpo_kernels._cpu",
        ["csrc/cpu.cpp", *KERNELS],
        include_dirs=["kernels"],
        depends=HEADERS,
        define_macros=[("TORCH_TARGET_VERSION", "0x020a000000000000")],
        extra_compile_args=FLAGS + [f"-isystem{path}" for path in include_paths()],
        library_dirs=[str(Path(torch.__file__).parent / "lib")],
        libraries=["torch_cpu"],
        extra_link_args=LINK_FLAGS,
        optional=True,
    )


def numpy_module():
    import pybind11

    return Extension(
        "pkpo_kernels._numpy",
        ["csrc/numpy.cpp", *KERNELS],
        include_dirs=["kernels"],
        depends=HEADERS,
        extra_compile_args=[*FLAGS, "-pthread", f"-isystem{pybind11.get_include()}"],
        extra_link_args=[*LINK_FLAGS, "-pthread"],
        optional=True,
    )


def extensions():
    builders = {"torch": torch_library, "pybind11": numpy_module}
    for requirement, builder in builders.items():
        if importlib.util.find_spec(requirement):
            yield builder()
        else:
            print(
                f"pkpo_kernels: {requirement} is not installed here: building without {builder.__name__}",
                file=sys.stderr,
            )


class BuildLibraries(build_ext):
    def get_ext_filename(self, fullname):
        """_cpu is no Python module: its name carries no Python version."""
        if fullname.rpartition(".")[2] == "_cpu":
            return os.path.join(*fullname.split(".")) + ".so"
        return super().get_ext_filename(fullname)


setup(ext_modules=list(extensions()), cmdclass={"build_ext": BuildLibraries})
