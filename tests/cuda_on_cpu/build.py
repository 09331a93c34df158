"""Compiles the CUDA kernels and their binding for the CPU.

python build.py FOLDER [FLAGS ...] writes FOLDER/_cuda_on_cpu.so.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths

ROOT = Path(__file__).parent.parent.parent
FLAGS = ["-std=c++20", "-O2", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
FLAGS += ["-Wno-unknown-pragmas", "-pthread", "-DPKPO_CUDA_ON_CPU", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
FLAGS += ["-Wno-maybe-uninitialized"]  # GCC 11 says it of what is initialized
FLAGS += [f"-I{ROOT / 'kernels'}", f"-I{Path(__file__).parent}", *(f"-isystem{path}" for path in include_paths())]


def main(folder, *flags):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CXX", "g++")
    kernels = sorted((ROOT / "kernels" / "cuda").glob("*.cu"))
    sources = [*kernels, ROOT / "csrc" / "cuda.cpp", Path(__file__).parent / "cuda_on_cpu.cpp"]

    def compiled(source):
        output = folder / f"{source.stem}.{source.suffix[1:]}.o"
        command = [compiler, *FLAGS, *flags, "-x", "c++", "-c", str(source), "-o", str(output)]
        subprocess.run(command, check=True)
        return str(output)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        objects = list(threads.map(compiled, sources))
    library = folder / "_cuda_on_cpu.so"
    torch_folder = Path(torch.__file__).parent / "lib"
    subprocess.run(
        [compiler, "-shared", "-pthread", *flags, *objects, "-o", str(library), f"-L{torch_folder}", "-ltorch_cpu"],
        check=True,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
