"""Builds the compiled libraries; what is not about compiling stands in pyproject.toml.

Two shared objects from the same kernels: ``_cpu.so``, the torch ops on the LibTorch stable ABI (one build serves every torch
from 2.10 on), and ``_numpy``, the NumPy module. Where there is no compiler, torch or pybind11, the package installs without
them and says so when it is imported.
"""

import importlib.util
import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

HEADERS = [str(path) for folder in ("kernels", "csrc") for path in Path(folder).rglob("*.h")]
# No contraction of a * b + c: the same bits on every machine.
FLAGS = ["-std=c++20", "-O3", "-fvisibility=hidden", "-ffp-contract=off", "-g0", "-Wall", "-Wextra"]
FLAGS += os.environ.get("PKPO_CXXFLAGS", "").split()
LINK_FLAGS = os.environ.get("PKPO_LDFLAGS", "").split()

KERNELS = [f"kernels/cpu/{name}.cpp" for name in ("isa", "group", "coefficients", "scratch")]
# Compiled once for each instruction set; which one runs is decided where it runs (kernels/cpu/isa.cpp). From the plainest on:
# of a function of the standard library that several of them carry, the linker keeps the first.
BATCH_KERNEL = "kernels/cpu/batch.cpp"
# Masks of neighbouring exchanges are stored as they come: put together in vectors first, they take longer.
BATCH_FLAGS = ["-fno-tree-slp-vectorize"]
INSTRUCTION_SETS = {"plain": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    INSTRUCTION_SETS["avx2"] = ["-mavx2", "-mbmi2", "-mpopcnt"]
    INSTRUCTION_SETS["avx512"] = [
        *INSTRUCTION_SETS["avx2"],
        *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"),
        "-Wno-uninitialized",  # GCC 12 says it of its own header
    ]


def torch_library():
    import torch
    from torch.utils.cpp_extension import include_paths

    return Extension(
        "pkpo_kernels._cpu",
        ["csrc/cpu.cpp"],
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
        ["csrc/numpy.cpp"],
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
    def build_extensions(self):
        """The kernels are compiled once, and linked into both libraries."""
        try:
            objects = self.compile_kernels()
        except CompileError as error:
            print(f"pkpo_kernels: the kernels do not compile here, building without them: {error}", file=sys.stderr)
            self.extensions.clear()
            return
        for extension in self.extensions:
            extension.extra_objects = [*extension.extra_objects, *objects]
        super().build_extensions()

    def compile_kernels(self):
        def compiled(source, folder, flags):
            return self.compiler.compile(
                [source],
                os.path.join(self.build_temp, folder),
                include_dirs=["kernels"],
                extra_postargs=[*FLAGS, *flags],
            )

        jobs = [
            (BATCH_KERNEL, isa, [*BATCH_FLAGS, *flags, f"-DPKPO_ISA={isa}"]) for isa, flags in INSTRUCTION_SETS.items()
        ]
        jobs = [(source, "common", []) for source in KERNELS] + jobs
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return [file for files in threads.map(lambda job: compiled(*job), jobs) for file in files]

    def get_ext_filename(self, fullname):
        """_cpu is no Python module: its name carries no Python version."""
        if fullname.rpartition(".")[2] == "_cpu":
            return os.path.join(*fullname.split(".")) + ".so"
        return super().get_ext_filename(fullname)


setup(ext_modules=list(extensions()), cmdclass={"build_ext": BuildLibraries})
