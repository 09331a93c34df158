"""Compiles Triton's kernels ahead of time, for GPUs that are not there, and reads what they take.

python tests/triton_compile.py [--every N] [--only rows|groups] [ARCHITECTURE ...]

Every kernel, or each Nth one, as tables; fails where one spills on NVIDIA. Of all kernels for all architectures it writes
bench/results/triton_rows.txt, of many rows, and triton_groups.txt, of all others, which takes an hour.
"""

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
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
    many: int = 0  # rows, of so many samples

    def __str__(self):
        room = f"n = {self.many}" if self.many else f"n <= {1 << self.log_n}" if self.log_n else "large"
        kind = "ragged" if self.ragged else "many rows" if self.many else "dense"
        kind += ", k a group" if self.tensor_k else ""
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
    # What most calls are.
    for op in ("transform", "max_at_k"):
        for form, log_n in itertools.product(forms[op], range(1, launch.log2_above(launch.LARGEST_ROW) + 1)):
            yield Variant(op, form, next(dtypes), log_n, False, False, many=1 << log_n)
            if log_n >= 4:
                yield Variant(op, form, next(dtypes), log_n, False, False, many=3 << (log_n - 2))


def source_of(variant):
    """What is compiled, and what launch.options_of() asks for beside the target."""
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
    elif variant.many:
        kernel, threads, flags = launch.rows_kernel(flags, variant.dtype, variant.many, 10**6)
    else:
        kernel, threads, flags = launch.group_kernel(flags, variant.dtype, variant.log_n, not variant.ragged, 1)
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
    ), (kernel, threads, flags)


class Usage(NamedTuple):
    registers: int
    spills: int  # instructions that store a register in local memory; on AMD, registers


def target_of(architecture):
    from triton.backends.compiler import GPUTarget

    return GPUTarget("cuda", architecture, 32) if architecture in NVIDIA else GPUTarget("hip", architecture, 64)


def compile_for(architecture, variant):
    import triton
    from pkpo_kernels.triton import launch

    target = target_of(architecture)
    source, asked = source_of(variant)
    options = launch.options_of(*asked, target)
    compiled = triton.compile(source, target=target, options=options)
    if target.backend == "hip":
        assembly = compiled.asm["amdgcn"]
        return Usage(
            *(int(re.search(rf"\.{name}:\s+(\d+)", assembly)[1]) for name in ("vgpr_count", "vgpr_spill_count"))
        )
    [cuobjdump] = Path(triton.__file__).parent.rglob("cuobjdump")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [cuobjdump, "-sass", "-res-usage", file.name]
        shown = subprocess.run(command, capture_output=True, text=True, check=True)
    output = shown.stdout + shown.stderr
    assert "EXIT" in output  # it is disassembled
    return Usage(int(re.search(r"weigh\w+:\s+REG:(\d+)", output)[1]), len(re.findall(r"\bSTL\b", output)))


def table(variants, architectures):
    """Lines, and whether registers spill on NVIDIA."""
    import triton
    from tqdm import tqdm

    jobs = [(architecture, variant) for variant in variants for architecture in architectures]
    with ProcessPoolExecutor() as processes:
        usages = list(tqdm(processes.map(compile_for, *zip(*jobs)), total=len(jobs)))
    lines = [
        f"Triton {triton.__version__}, compiled ahead of time, not run: registers of a thread (+ how many are spilled)",
        f"{'':<60}" + "".join(f"{architecture:>11}" for architecture in architectures),
    ]
    for i in range(0, len(jobs), len(architectures)):
        cells = (f"{u.registers}" + (f" + {u.spills}" if u.spills else "") for u in usages[i : i + len(architectures)])
        lines.append(f"{jobs[i][1]!s:<60}" + "".join(f"{cell:>11}" for cell in cells))
    return lines, any(usage.spills for (architecture, _), usage in zip(jobs, usages) if architecture in NVIDIA)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--only", choices=("rows", "groups"))
    parser.add_argument("architectures", nargs="*", type=lambda name: int(name) if name.isdigit() else name)
    arguments = parser.parse_args()
    some_spill = False
    chosen = list(itertools.islice(variants(), 0, None, arguments.every))
    for name in (arguments.only,) if arguments.only else ("groups", "rows"):
        its_variants = [variant for variant in chosen if (variant.many > 0) == (name == "rows")]
        if not its_variants:
            continue
        lines, spills = table(its_variants, arguments.architectures or [*NVIDIA, *AMD])
        print("\n".join(lines))
        some_spill |= spills
        if not arguments.architectures and arguments.every == 1:
            sys.path.insert(0, str(ROOT))
            from bench.machine import described, in_words

            lines.insert(1, in_words(described("triton")))
            (ROOT / "bench" / "results" / f"triton_{name}.txt").write_text("\n".join([*lines, ""]))
    if some_spill:
        sys.exit("registers spill")


if __name__ == "__main__":
    main()
