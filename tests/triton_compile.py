"""Compiles Triton's kernels ahead of time, for GPUs that are not there, and reads what they take.

python tests/triton_compile.py [ARCHITECTURE ...]     every kernel, as a table
"""

import itertools
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

NVIDIA = (80, 90, 100, 120)
AMD = ("gfx942", "gfx950")


class Variant(NamedTuple):
    """What is compiled into a kernel; log_n is None for the kernel of large groups."""

    op: str
    form: str
    dtype: str
    log_n: int | None
    ragged: bool
    tensor_k: bool

    def __str__(self):
        room = f"n <= {1 << self.log_n}" if self.log_n else "large"
        kind = ("ragged" if self.ragged else "dense") + (", k a group" if self.tensor_k else "")
        return f"{self.op:<9} {self.form:<8} {self.dtype:<8} {room:<10} {kind}"


def variants():
    """Every op and form, size and kind of arithmetic; of the rest, which is only how rewards, offsets and k are read,
    each."""
    from pkpo_kernels.triton import launch

    dtypes = itertools.cycle(("float32", "float32", "bfloat16", "int16", "bool", "float32", "float16"))
    wide = itertools.cycle(("float64", "float64", "int64"))
    flags = itertools.cycle(itertools.product((False, True), (False, True)))
    forms = {"transform": ("none", "loo", "loo-1"), "max_at_k": ("max_at_k",), "backward": tuple(launch.FORMS)}
    for op, of_op in forms.items():
        sizes = [*range(1, launch.log2_above(launch.LARGEST[op == "backward"]) + 1), None]
        for form, log_n, is_wide in itertools.product(of_op, sizes, (False, True)):
            dtype = next(wide) if is_wide else next(dtypes)
            if op == "backward" and dtype not in ("float64", "float32", "bfloat16", "float16"):
                dtype = "float64" if is_wide else "float32"
            yield Variant(op, form, dtype, log_n, *next(flags))


def source_of(variant):
    from pkpo_kernels.triton import launch
    from triton.compiler import ASTSource

    pointers = {
        "float64": "fp64",
        "float32": "fp32",
        "float16": "fp16",
        "bfloat16": "bf16",
        "bool": "u8",
        "int16": "i16",
        "int64": "i64",
    }
    is_sorted = variant.log_n is None and not variant.ragged
    flags = launch.flags_of(variant.op, variant.form, variant.dtype, variant.ragged, variant.tensor_k, variant.tensor_k)
    if variant.log_n is None:
        kernel, threads, flags = launch.large_kernel(flags, is_sorted)
    else:
        kernel, threads, flags = launch.group_kernel(flags, variant.dtype, variant.log_n, not variant.ragged)
    rewards = pointers[variant.dtype]
    out = rewards if rewards in ("fp64", "fp32", "fp16", "bf16") else "fp32"
    kinds = {
        "rewards": rewards,
        "grad": rewards,
        "offsets": "i64",
        "k_tensor": "i64",
        "out": out,
        "results": "fp64",
        "carried": "fp64",
    }
    kinds["keys"] = ("fp64" if flags["WIDE"] else "fp32") if is_sorted else "i64"
    kinds["numbers"] = "i64" if is_sorted else "i32"
    signature = {
        name: "constexpr" if name in flags else f"*{kinds[name]}" if name in kinds else "i64"
        for name in kernel.arg_names
    }
    return ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(kernel.arg_names.index(name),): value for name, value in flags.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if name in kinds},
    ), threads


class Usage(NamedTuple):
    registers: int
    stack: int  # bytes, for spilled registers
    seconds: float


def compile_for(architecture, variant):
    import time

    import triton
    from triton.backends.compiler import GPUTarget

    is_nvidia = isinstance(architecture, int)
    target = GPUTarget("cuda", architecture, 32) if is_nvidia else GPUTarget("hip", architecture, 64)
    source, threads = source_of(variant)
    begin = time.perf_counter()
    options = {"num_warps": threads // target.warp_size, "enable_fp_fusion": False}
    compiled = triton.compile(source, target=target, options=options)
    seconds = time.perf_counter() - begin
    if not is_nvidia:
        assembly = compiled.asm["amdgcn"]
        found = [re.search(rf"\.{name}:\s+(\d+)", assembly)[1] for name in ("vgpr_count", "private_segment_fixed_size")]
        return Usage(*map(int, found), seconds)
    [cuobjdump] = Path(triton.__file__).parent.rglob("cuobjdump")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run([cuobjdump, "-res-usage", file.name], capture_output=True, text=True, check=True)
    found = re.search(r"weigh\w+:\s+REG:(\d+) STACK:(\d+)", usage.stdout + usage.stderr)
    return Usage(*map(int, found.groups()), seconds)


def main():
    architectures = [int(name) if name.isdigit() else name for name in sys.argv[1:]] or [*NVIDIA, *AMD]
    jobs = list(itertools.product(architectures, variants()))
    with ProcessPoolExecutor() as processes:
        for (architecture, variant), usage in zip(jobs, processes.map(compile_for, *zip(*jobs))):
            print(
                f"{architecture:>7} {variant!s:<60} {usage.registers:>4} registers {usage.stack:>5} bytes of stack",
                flush=True,
            )


if __name__ == "__main__":
    main()
