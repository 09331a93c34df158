"""The implementations that every test of the ops runs through. A new backend joins by one line."""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

import torch

from pkpo_kernels import _backends, _triton, ops, reference


class Ops:
    """What torch dispatches to; the three forms told apart by the arguments."""

    checks_contents = True  # of offsets and k
    one_arithmetic = True  # for all types
    most_groups = 10**6  # in one call of a test

    def __init__(self, packets=torch.ops.pkpo):
        self.transform = packets.transform
        self.max_at_k = packets.max_at_k
        self.transform_backward = packets._transform_backward
        self.max_at_k_backward = packets._max_at_k_backward


class CpuOps(Ops):
    """The CPU library on one instruction set."""

    def __init__(self, isa):
        super().__init__()
        for name in ("transform", "max_at_k", "transform_backward", "max_at_k_backward"):
            setattr(self, name, self.on(isa, getattr(self, name)))

    @staticmethod
    def on(isa, op):
        def call(*args, **keywords):
            with _backends.cpu_isa(isa):
                return op(*args, **keywords)

        return call


def packets_of(name, register):
    """The ops under a name of their own, whose kernels ``register(library)`` registers: also where another backend serves."""
    library = torch.library.Library(name, "DEF")
    ops.define_schemas(library)
    register(library)
    packets = getattr(torch.ops, name)
    packets.library = library  # lives as long
    for op in ("transform", "max_at_k", "_transform_backward", "_max_at_k_backward"):
        ops.choose_form_by_type(getattr(packets, op), op)
    return packets


def triton_packets(key):
    return packets_of(f"pkpo_triton_{key.lower()}", lambda library: _triton.implement(library, key))


@contextlib.contextmanager
def held(setting, value, usual):
    """What a function sets, for a while another value."""
    setting(value)
    try:
        yield
    finally:
        setting(usual)


class CudaOnCpuOps(Ops):
    """The CUDA kernels' own sources, compiled for the CPU (cuda_on_cpu/cuda_on_cpu.h)."""

    checks_contents = False
    one_arithmetic = False

    def __init__(self):
        folder = os.environ.get("PKPO_CUDA_ON_CPU", Path(__file__).parent.parent / "build" / "cuda_on_cpu")
        self.library = ctypes.CDLL(str(Path(folder) / "_cuda_on_cpu.so"))
        super().__init__(packets_of("pkpo_cuda_on_cpu", lambda library: self.library.pkpo_cuda_register()))

    def small_batches_fit(self, most_blocks=10**6):
        """Kernels as for batches of which a GPU takes all groups at once, in so many blocks; else as for larger ones,
        whatever the batch."""
        return held(self.library.cuda_on_cpu_fits, most_blocks, 0)

    def launches(self):
        """How many there have been."""
        return self.library.cuda_on_cpu_launches()

    def a_launch_for_each_pass(self):
        """Large groups as where the device has no room for a grid whose blocks wait for each other."""
        return held(self.library.cuda_on_cpu_cooperates, False, True)

    def little_shared_memory(self):
        """As on GPUs whose blocks have 99 KB of it at most."""
        return held(self.library.cuda_on_cpu_has_little_shared_memory, True, False)


class TritonInterpretedOps(Ops):
    """Triton's kernels in its interpreter (TRITON_INTERPRET=1, in a process of its own)."""

    checks_contents = False
    one_arithmetic = False
    most_groups = 20_000  # it runs one program after another

    def __init__(self):
        import triton
        from triton.runtime.interpreter import InterpretedFunction

        super().__init__(triton_packets("CPU"))
        # For every function that a kernel calls the interpreter patches the modules of Triton's language that the function
        # sees: twice the time. Once for a kernel is enough, if it sees both modules.
        for name in ("group", "rows", "large"):
            sys.modules[f"pkpo_kernels.triton.{name}"].core = triton.language.core
        InterpretedFunction.__call__ = lambda function, *args, **keywords: function.rewrite()(*args, **keywords)


class GpuOps(Ops):
    """Ops of a GPU, for tensors of the CPU."""

    checks_contents = False
    one_arithmetic = False

    def __init__(self, packets=torch.ops.pkpo):
        super().__init__(packets)
        for name in ("transform", "max_at_k", "transform_backward", "max_at_k_backward"):
            setattr(self, name, self.on_gpu(getattr(self, name)))

    @staticmethod
    def on_gpu(op):
        def call(*args, **keywords):
            return op(*(a.cuda() if isinstance(a, torch.Tensor) else a for a in args), **keywords).cpu()

        return call


class Reference:
    """The reference called past the dispatcher, so that it is tested where a kernel serves."""

    checks_contents = True
    one_arithmetic = True
    most_groups = 10**6

    def transform(self, rewards, *args, **keywords):
        function = reference.transform_grouped if len(args) == 2 else reference.transform
        return function(rewards, *args, **keywords)

    def max_at_k(self, rewards, *args):
        if isinstance(args[-1], list):
            return (reference.max_at_k_curve_grouped if len(args) == 2 else reference.max_at_k_curve)(rewards, *args)
        return (reference.max_at_k_grouped if len(args) == 2 else reference.max_at_k)(rewards, *args)

    def transform_backward(self, grad, rewards, *args, **keywords):
        function = reference.transform_backward_grouped if len(args) == 2 else reference.transform_backward
        return function(grad, rewards, *args, **keywords)

    def max_at_k_backward(self, grad, rewards, *args):
        function = reference.max_at_k_backward_grouped if len(args) == 2 else reference.max_at_k_backward
        return function(grad, rewards, *args)


CPU = {f"cpu {isa}": CpuOps(isa) for isa in _backends.available_cpu_isas()}

# name -> what makes it
_OTHERS = {"cuda on cpu": CudaOnCpuOps, "reference": Reference}
if _triton.is_interpreted():
    _OTHERS["triton interpreted"] = TritonInterpretedOps
if torch.cuda.is_available():
    torch.cuda.init()
    if not _backends.cuda_problem:
        _OTHERS["cuda"] = GpuOps
    if not (_triton.problem() or _triton.is_interpreted()):
        _OTHERS["triton"] = lambda: GpuOps(triton_packets("CUDA"))

# All, or those that PKPO_TEST_BACKENDS asks for, such as "cpu avx2,reference": then no other need be built.
_names = os.environ["PKPO_TEST_BACKENDS"].split(",") if "PKPO_TEST_BACKENDS" in os.environ else [*CPU, *_OTHERS]
BACKENDS = {name: CPU[name] if name in CPU else _OTHERS[name]() for name in _names}
