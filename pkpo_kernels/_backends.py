"""Finds and loads the compiled libraries of the ops; knows what serves which device."""

from __future__ import annotations

import contextlib
import ctypes
import os
import warnings
from pathlib import Path

import torch

from . import _triton
from ._how_to_build import how_to_build, why_not_built

CPU_LIBRARY = Path(__file__).parent / "_cpu.so"
CUDA_LIBRARY = Path(__file__).parent / "_cuda.so"

cpu_problem: str | None = None  # why the compiled CPU library does not serve; None: it does
cuda_problem: str | None = "CUDA is not in use yet"  # the same of the CUDA library
_of_triton: torch.library.Library | None = None  # what is registered where the CUDA library does not serve


def load() -> None:
    """Loads the CPU library, or says once why not and what to do about it. The ops work in either case."""
    global cpu_problem
    if not CPU_LIBRARY.exists():
        cpu_problem = why_not_built("a C++ compiler, or where pip did not see torch: without --no-build-isolation")
    else:
        try:
            torch.ops.load_library(CPU_LIBRARY)
        except OSError as error:
            cpu_problem = f"not usable ({error})"
    if cpu_problem:
        warnings.warn(
            f"pkpo_kernels: the compiled CPU library is {cpu_problem}. The ops work, on the reference in plain torch, "
            f"tens of times slower. {how_to_build('torch')}",
            stacklevel=3,
        )
    else:
        try:
            torch.ops.pkpo._cpu_isa("")
        except RuntimeError as error:
            name = os.environ.get("PKPO_CPU_ISA")
            raise ImportError(f"pkpo_kernels: the environment variable PKPO_CPU_ISA is {name!r}. {error}") from None


def load_gpu_when_needed() -> None:
    """Where torch has CUDA or ROCm, has it register what serves GPU tensors as soon as it starts the GPU itself: not
    sooner, so that a process can still be forked after ``import pkpo_kernels``. That is the CUDA library, else Triton, else
    the reference."""
    global cuda_problem
    if not torch.version.cuda:
        cuda_problem = "not loaded (torch is built without CUDA)"
    elif not CUDA_LIBRARY.exists():
        cuda_problem = "not built (install where there is nvcc, or a wheel that has your GPU's sm_.. in its name)"
    if torch.version.cuda or torch.version.hip:
        torch.cuda._lazy_call(_load_gpu)


def _load_gpu() -> None:
    global cuda_problem, _of_triton
    if torch.version.cuda and CUDA_LIBRARY.exists():
        try:
            cuda_problem = load_cuda_library(CUDA_LIBRARY)
        except OSError as error:
            cuda_problem = str(error)
        if cuda_problem is None:
            return
        cuda_problem = f"not usable ({cuda_problem})"
        if os.environ.get("PKPO_BACKEND") == "cuda":
            raise RuntimeError(f"pkpo_kernels: the backend 'cuda' (PKPO_BACKEND) is {cuda_problem}")
    triton_problem = _triton.problem()
    if triton_problem is None:
        _of_triton = torch.library.Library("pkpo", "IMPL")
        _triton.implement(_of_triton, "CUDA")
        serves = "on Triton's kernels"
    else:
        serves = f"on the reference in plain torch, many times slower ({triton_problem})"
    if cuda_problem.startswith("not usable") or triton_problem:
        warnings.warn(
            f"pkpo_kernels: the compiled CUDA library is {cuda_problem}. On GPU tensors the ops work {serves}",
            stacklevel=2,
        )


def load_cuda_library(path) -> str | None:
    """Opens it; registers its kernels if they can run here, else says why not."""
    library = ctypes.CDLL(str(path))
    library.pkpo_cuda_problem.restype = ctypes.c_char_p
    problem = library.pkpo_cuda_problem()
    if problem is None:
        library.pkpo_cuda_register()
        return None
    return problem.decode()


def available_cpu_isas() -> list[str]:
    """The instruction sets of the compiled CPU library that this machine has, best first."""
    return [] if cpu_problem else torch.ops.pkpo._cpu_isa("").partition(":")[2].split()


def cpu_isa_in_use() -> str:
    return torch.ops.pkpo._cpu_isa("").partition(":")[0]


@contextlib.contextmanager
def cpu_isa(name: str):
    """The CPU library on another instruction set, for all threads: to test and to measure it."""
    before = cpu_isa_in_use()
    torch.ops.pkpo._cpu_isa(name)
    try:
        yield
    finally:
        torch.ops.pkpo._cpu_isa(before)


def serving(forced: str | None) -> dict[str, str]:
    """Device type -> the backend that its tensors reach; ``forced``: the one asked for."""
    reference, triton = "reference (plain torch)", "Triton kernels"
    devices = {"cpu": reference if cpu_problem or forced == "reference" else "compiled CPU library"}
    if forced == "triton" and _triton.is_interpreted():
        devices["cpu"] = f"{triton}, in Triton's interpreter"
    elif devices["cpu"] != reference:
        available = ", ".join(available_cpu_isas())
        devices["cpu"] += f", {cpu_isa_in_use()} (this machine has {available}; PKPO_CPU_ISA chooses)"
    if torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator().type
        devices[device] = reference
        if device == "cuda" and forced != "reference":
            torch.cuda.init()
            if not cuda_problem and forced != "triton":
                devices[device] = "compiled CUDA library"
            elif _triton.problem() is None:
                devices[device] = triton
    return devices
