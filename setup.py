"""Builds the compiled libraries; what is not about compiling stands in pyproject.toml.

Two shared objects from the same kernels: ``_cpu.so``, the torch ops on the LibTorch stable ABI (one build serves every torch
from 2.10 on), and ``_numpy``, the NumPy module. Where there is no compiler, torch or pybind11, the package installs without
them and says so when it is imported.

A third, ``_cuda.so``, with nvcc: for the GPU architectures in ``PKPO_CUDA_ARCHS`` ("8.0 9.0+PTX"; "none" for no
CUDA library), or, where that is not set, for the GPU that torch finds. Building for others needs neither a GPU nor a
CUDA build of torch.
"""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

# Those first that take longest to compile.
CUDA_KERNELS = ["block", "small_float", "cooperative", "ragged", "small_backward", "small_wide", "small_usual"]
CUDA_KERNELS += ["large", "two_turns", "small_largest", "quick", "tiny", "small", "run"]
# No contraction here either: a group has the same bits whichever of the kernels does it.
NVCC_FLAGS = ["-std=c++20", "-O3", "-fmad=false", "-Xcompiler=-fPIC,-fvisibility=hidden", "-Xptxas=-v"]
NVCC_FLAGS += ["-diag-suppress=20012", *os.environ.get("PKPO_NVCC_FLAGS", "").split()]

HEADERS = [str(path) for folder in ("kernels", "csrc") for path in Path(folder).rglob("*.h")]
# No contraction of a * b + c: the same bits on every machine.
FLAGS = ["-std=c++20", "-O3", "-fvisibility=hidden", "-ffp-contract=off", "-g0", "-Wall", "-Wextra"]
FLAGS += os.environ.get("PKPO_CXXFLAGS", "").split()
LINK_FLAGS = os.environ.get("PKPO_LDFLAGS", "").split()

KERNELS = [f"kernels/cpu/{name}.cpp" for name in ("isa", "group", "coefficients", "scratch")]
# Compiled once for each instruction set and each type that rewards are compared as; which one runs is decided where it runs
# (kernels/cpu/isa.cpp). From the plainest on: of a function of the standard library that several of them carry, the linker
# keeps the first.
BATCH_KERNEL = "kernels/cpu/batch.cpp"
KERNEL_SOURCES = ["setup.py", *HEADERS, *KERNELS, BATCH_KERNEL]  # where one changes, the libraries must be linked anew
# Masks of neighbouring exchanges are stored as they come: put together in vectors first, they take longer. Functions begin
# at a cache line: the same instructions 32 bytes later have taken twice as long (Zen 5). Loops begin where instructions are
# fetched: elsewhere, as it comes, rows of 48 took 3 to 5 % longer (Zen 4).
BATCH_FLAGS = ["-fno-tree-slp-vectorize", "-falign-functions=64", "-falign-loops=32"]
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
        depends=KERNEL_SOURCES,
        define_macros=[("TORCH_TARGET_VERSION", "0x020a000000000000")],
        extra_compile_args=FLAGS + [f"-isystem{path}" for path in include_paths()],
        library_dirs=[str(Path(torch.__file__).parent / "lib")],
        libraries=["torch_cpu"],
        extra_link_args=LINK_FLAGS,
        optional=True,
    )


def cuda_home():
    return os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")


def nvcc():
    """Of CUDA_HOME, else what pip installed here (cuda-toolkit[nvcc]), else of PATH, else of /usr/local/cuda."""
    if cuda_home():
        return shutil.which(os.path.join(cuda_home(), "bin", "nvcc"))
    packages = importlib.util.find_spec("nvidia")
    folders = packages.submodule_search_locations if packages else []
    of_pip = [str(path) for folder in folders for path in Path(folder).glob("cu*/bin/nvcc")]
    return next(filter(None, map(shutil.which, [*of_pip, "nvcc", "/usr/local/cuda/bin/nvcc"])), None)


def cuda_archs():
    """[("9.0", whether with PTX)]; none for no CUDA library."""
    asked = os.environ.get("PKPO_CUDA_ARCHS")
    if asked is None:
        import torch

        if not (torch.version.cuda and nvcc() and torch.cuda.is_available()):
            return []
        asked = "{}.{}".format(*torch.cuda.get_device_capability())
    if asked.strip().lower() == "none":
        return []
    archs = asked.replace(",", " ").replace(";", " ").split()
    for arch in archs:
        if not re.fullmatch(r"[0-9]+\.[0-9][af]?(\+PTX)?", arch):
            raise SystemExit(
                f"PKPO_CUDA_ARCHS must be architectures like '8.0 9.0+PTX', or 'none', got {arch!r} in {asked!r}"
            )
    if not archs:
        raise SystemExit("PKPO_CUDA_ARCHS must be architectures like '8.0 9.0+PTX', or 'none', got nothing")
    if not nvcc():
        raise SystemExit(
            f"PKPO_CUDA_ARCHS is {asked!r}, but there is no nvcc{f' in {cuda_home()}' if cuda_home() else ''}: "
            "pip install 'cuda-toolkit[nvcc,cudart,cccl]==13.0.*', or set CUDA_HOME to a CUDA toolkit"
        )
    return [(arch.removesuffix("+PTX"), arch.endswith("+PTX")) for arch in archs]


def cuda_codes():
    for arch, ptx in cuda_archs():
        number = arch.replace(".", "")
        yield f"-gencode=arch=compute_{number},code=sm_{number}"
        if ptx:
            yield f"-gencode=arch=compute_{number},code=compute_{number}"


def cuda_version():
    release = subprocess.run([nvcc(), "--version"], check=True, capture_output=True, text=True).stdout
    return re.search(r"release ([0-9]+)\.([0-9]+)", release).groups()


def local_version():
    """What a wheel's name tells of its CUDA library, where that was asked for: +cu130.sm80.sm90, or +cpu."""
    if "PKPO_CUDA_ARCHS" not in os.environ:
        return ""
    archs = [f"sm{arch.replace('.', '')}" for arch, _ in cuda_archs()]
    return "+cpu" if not archs else ".".join(["+cu" + "".join(cuda_version()), *archs])


def cuda_library():
    """Built by BuildLibraries.build_cuda."""
    sources = [f"kernels/cuda/{name}.cu" for name in CUDA_KERNELS]
    headers = [str(path) for path in Path("kernels/cuda").iterdir() if str(path) not in sources]
    return Extension("pkpo_kernels._cuda", ["csrc/cuda.cpp"], depends=[*HEADERS, *sources, *headers])


def numpy_module():
    import pybind11

    return Extension(
        "pkpo_kernels._numpy",
        ["csrc/numpy.cpp"],
        include_dirs=["kernels"],
        depends=KERNEL_SOURCES,
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
    if importlib.util.find_spec("torch") and cuda_archs():
        yield cuda_library()


class BuildLibraries(build_ext):
    def build_extensions(self):
        """The kernels are compiled once, side by side, and linked into both libraries."""
        with ThreadPoolExecutor(os.cpu_count()) as self.jobs:
            kernels = self.start_kernels()
            if any(extension.name == "pkpo_kernels._cuda" for extension in self.extensions):
                self.start_cuda()  # the long and the short ones: what comes last is short
            else:
                Path(self.get_ext_fullpath("pkpo_kernels._cuda")).unlink(missing_ok=True)  # of an earlier build
            try:
                objects = [file for kernel in kernels for file in kernel.result()]
            except CompileError as error:
                print(f"pkpo_kernels: the kernels do not compile here, building without them: {error}", file=sys.stderr)
                self.extensions.clear()
                return
            for extension in self.extensions:
                if extension.name != "pkpo_kernels._cuda":
                    extension.extra_objects = [*extension.extra_objects, *objects]
            super().build_extensions()

    def build_extension(self, extension):
        if extension.name == "pkpo_kernels._cuda":
            self.link_cuda(self.get_ext_fullpath(extension.name))
        else:
            super().build_extension(extension)

    def start_cuda(self):
        """A failure is an error: it was asked for. What ptxas says of every kernel is kept in build/ptxas/."""
        from torch.utils.cpp_extension import include_paths

        folder = Path(self.build_temp) / "cuda"
        reports = Path("build/ptxas")
        folder.mkdir(parents=True, exist_ok=True)
        reports.mkdir(parents=True, exist_ok=True)
        names = " ".join(arch + "+PTX" * ptx for arch, ptx in cuda_archs())
        # What is asked of a driver by the smallest code, CUDA 13 asks anyway, but not each CUDA 12.
        compress = "-compress-mode=size" if int(cuda_version()[0]) >= 13 else "-Xfatbin=-compress-all"

        def compiled(name):
            output = folder / f"{name}.o"
            if name == "binding":
                command = [*self.compiler.compiler_so, *FLAGS, "-DTORCH_TARGET_VERSION=0x020a000000000000", "-Ikernels"]
                command += [f"-isystem{path}" for path in include_paths()]
                command += ["-c", "csrc/cuda.cpp", "-o", str(output)]
            else:
                command = [nvcc(), *NVCC_FLAGS, compress, *cuda_codes(), f'-DPKPO_CUDA_ARCHS="{names}"', "-Ikernels"]
                command += ["-c", f"kernels/cuda/{name}.cu", "-o", str(output)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise CompileError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
            (reports / f"{name}.txt").write_text(done.stdout + done.stderr)
            return str(output)

        self.cuda_objects = self.jobs.map(compiled, [*CUDA_KERNELS, "binding"])

    def link_cuda(self, library):
        import torch

        torch_folder = Path(torch.__file__).parent / "lib"
        Path(library).parent.mkdir(parents=True, exist_ok=True)
        # Nothing of cudart is to be seen outside, where another library may bring another one.
        command = [
            nvcc(),
            *cuda_codes(),
            "-shared",
            "-cudart",
            "static",
            *self.cuda_objects,
            "-o",
            library,
            f"-L{torch_folder}",
            f"-L{Path(nvcc()).parent.parent / 'lib'}",  # pip's CUDA 13.0 looks in lib64 alone
            "-ltorch_cpu",
        ]
        self.spawn([*command, "-Xlinker", "--exclude-libs=ALL", "-Xlinker", "--strip-debug"])

    def start_kernels(self):
        """Every source's objects, as futures."""

        def compiled(source, folder, flags):
            return self.compiler.compile(
                [source],
                os.path.join(self.build_temp, folder),
                include_dirs=["kernels"],
                extra_postargs=[*FLAGS, *flags],
            )

        jobs = [(source, "common", []) for source in KERNELS]
        for isa, flags in INSTRUCTION_SETS.items():
            for value in ("double", "float"):
                names = [f"-DPKPO_ISA={isa}", f"-DPKPO_VALUE={value}"]
                jobs.append((BATCH_KERNEL, f"{isa}_{value}", [*BATCH_FLAGS, *flags, *names]))
        # What takes longest is begun first: it stands last.
        return [self.jobs.submit(compiled, *job) for job in reversed(jobs)][::-1]

    def get_ext_filename(self, fullname):
        """_cpu and _cuda are no Python modules: their names carry no Python version."""
        if fullname.rpartition(".")[2] in ("_cpu", "_cuda"):
            return os.path.join(*fullname.split(".")) + ".so"
        return super().get_ext_filename(fullname)


if __name__ == "__main__":  # the benchmarks and the Makefile ask nvcc() alone
    setup(
        ext_modules=list(extensions()),
        cmdclass={"build_ext": BuildLibraries},
        options={"egg_info": {"tag_build": local_version()}},
    )
