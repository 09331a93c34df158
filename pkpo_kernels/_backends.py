"""Finds and loads the compiled libraries of the ops; knows what serves which device."""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path

import torch

CPU_LIBRARY = Path(__file__).parent / "_cpu.so"
_HOW_TO_BUILD = (
    "install a C++20 compiler (g++ >= 11 or clang >= 14; Debian and Ubuntu: apt install g++) and then, in the environment "
    "that has torch and in the source folder of pkpo_kernels: pip install --no-build-isolation --no-deps --force-reinstall ."
)

cpu_problem: str | None = None  # why the compiled CPU library does not serve; None: it does


def load() -> None:
    """Loads the CPU library, or says once why not and what to do about it. The ops work in either case."""
    global cpu_problem
    if not CPU_LIBRARY.exists():
        cpu_problem = "not built (this installation was made without a C++ compiler or without torch)"
    else:
        try:
            torch.ops.load_library(CPU_LIBRARY)
        except OSError as error:
            cpu_problem = f"not usable ({error})"
    if cpu_problem:
        warnings.warn(
            f"pkpo_kernels: the compiled CPU library is {cpu_problem}. The ops work, on the reference in plain torch, "
            f"tens of times slower. To build it, {_HOW_TO_BUILD}",
            stacklevel=3,
        )
    else:
        try:
            torch.ops.pkpo._cpu_isa("")
        except RuntimeError as error:
            name = os.environ.get("PKPO_CPU_ISA")
            raise ImportError(f"pkpo_kernels: the environment variable PKPO_CPU_ISA is {name!r}. {error}") from None


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


def serving() -> dict[str, str]:
    """Device type -> the backend that its tensors reach."""
    reference = "reference (plain torch)"
    devices = {"cpu": reference if cpu_problem else "compiled CPU library"}
    if not cpu_problem:
        available = ", ".join(available_cpu_isas())
        devices["cpu"] += f", {cpu_isa_in_use()} (this machine has {available}; PKPO_CPU_ISA chooses)"
    if torch.accelerator.is_available():
        devices[torch.accelerator.current_accelerator().type] = reference
    return devices
