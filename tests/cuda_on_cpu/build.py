"""Compiles the CUDA kernels and their binding for the CPU.

python build.py FOLDER [--races] [FLAGS ...] writes FOLDER/_cuda_on_cpu.so; with --races, which needs g++, one that stops
where threads race.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COMPILER = os.environ.get("CXX", "g++")
FLAGS = ["-std=c++20", "-O2", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
FLAGS += ["-Wno-unknown-pragmas", "-pthread", "-DPKPO_CUDA_ON_CPU", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
FLAGS += ["-Wno-maybe-uninitialized"]  # GCC 11 says it of what is initialized
FLAGS += [f"-I{ROOT / 'kernels'}", f"-I{HERE}", *(f"-isystem{path}" for path in include_paths())]
# Of kernels alone: what plays the GPU is not watched.
WATCHED = ["-fsanitize=thread", "--param=tsan-distinguish-volatile=1", "-Wno-tsan", "-g1"]


def compiled(sources, folder, flags=(), races=False):
    """The object files of sources and of what plays the GPU; ``races``: where kernels are watched."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = [*sources, HERE / "cuda_on_cpu.cpp"]
    if races:
        flags = ["-DCUDA_ON_CPU_RACES", *flags]
        sources.append(HERE / "races.cpp")

    def compile_one(source):
        output = folder / f"{source.stem}.{source.suffix[1:]}.o"
        watched = WATCHED if races and source.suffix == ".cu" else []
        command = [COMPILER, *FLAGS, *flags, *watched, "-x", "c++", "-c", str(source), "-o", str(output)]
        subprocess.run(command, check=True)
        return str(output)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(compile_one, sources))


def main(folder, *flags):
    folder, races, flags = Path(folder), "--races" in flags, [flag for flag in flags if flag != "--races"]
    sources = [*sorted((ROOT / "kernels" / "cuda").glob("*.cu")), ROOT / "csrc" / "cuda.cpp"]
    objects = compiled(sources, folder, flags, races)
    library = folder / "_cuda_on_cpu.so"
    torch_folder = Path(torch.__file__).parent / "lib"
    subprocess.run(
        [COMPILER, "-shared", "-pthread", *flags, *objects, "-o", str(library), f"-L{torch_folder}", "-ltorch_cpu"],
        check=True,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
