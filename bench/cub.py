"""CUB's segmented sort, a peer of bench/gpu.py: compiled by nvcc for the GPU that is there, called by ctypes. python -m
bench.cub compiles it ahead."""

import ctypes
import functools
import subprocess
from pathlib import Path

import torch

from setup import nvcc

SOURCE = Path(__file__).parent / "cub.cu"


def library():
    """Compiled where that was not done yet; None where there is no nvcc."""
    if not nvcc():
        return None
    architecture = "sm_{}{}".format(*torch.cuda.get_device_capability())
    path = SOURCE.parent.parent / "build" / f"cub_{architecture}.so"
    if not path.exists() or path.stat().st_mtime < SOURCE.stat().st_mtime:
        path.parent.mkdir(exist_ok=True)
        flags = ["-std=c++17", "-O3", f"-arch={architecture}", "-Xcompiler", "-fPIC", "-shared", "-cudart", "static"]
        subprocess.run([nvcc(), *flags, str(SOURCE), "-o", str(path)], check=True)
    return path


@functools.cache
def segmented_sort():
    """A function that sorts the rows of rewards, float32 on the GPU; None where there is no nvcc."""
    path = library()
    if path is None:
        return None
    sort = ctypes.CDLL(str(path)).cub_segmented_sort
    workspaces, outs = {}, {}

    def call(x):
        groups, n = x.shape
        if x.shape not in outs:
            outs.clear(), workspaces.clear()
            outs[x.shape] = torch.empty_like(x)
        arguments = (ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(outs[x.shape].data_ptr()), groups, n)
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        if x.shape not in workspaces:
            size = ctypes.c_size_t(0)
            if sort(None, ctypes.byref(size), *arguments, stream):
                raise RuntimeError("CUB's segmented sort gave an error")
            workspaces[x.shape] = torch.empty(size.value, dtype=torch.uint8, device="cuda")
        workspace = workspaces[x.shape]
        size = ctypes.c_size_t(workspace.numel())
        if sort(ctypes.c_void_p(workspace.data_ptr()), ctypes.byref(size), *arguments, stream):
            raise RuntimeError("CUB's segmented sort gave an error")
        return outs[x.shape]

    x = torch.randn(100, 37, device="cuda")
    if not torch.equal(call(x), x.sort(-1).values):
        raise RuntimeError("CUB's segmented sort does not sort")
    return call


if __name__ == "__main__":
    if library() is None:
        raise SystemExit("bench.cub needs nvcc, and there is none here")
