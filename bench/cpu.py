"""``make bench``: the CPU kernel beside its peers, as ratios measured side by side; writes bench/results/cpu.json,
cpu.md and cpu.png.

Peers: torch's own ops (sort, gather, cumsum, scatter), eager and compiled; ``np.sort`` of the array alone; a copy of it.
Rewards are standard normal unless said otherwise, k = 4, baseline loo-1. A batch has 4,096 groups, fewer where that would
be more than 2^22 samples; "ragged" are as many samples in groups of n/2 to 3n/2. Each instruction set that the machine has is
measured in a process of its own, in which NumPy is held to the same one; batches of other sizes in another one, in which
glibc keeps the memory of results, so that pages are not new.
"""

import argparse
import json
import os
import subprocess
import sys

import numpy as np
import torch
from tqdm import tqdm

from bench import peers, report
from bench.machine import described
from bench.timing import side_by_side
from pkpo_kernels import _backends

SIZES = (8, 16, 32, 64, 256, 1024, 4096, 10_000, 100_000, 1_000_000)
NEIGHBOURS = sorted({*range(2, 131), *(2**e + d for e in range(7, 14) for d in (-1, 0, 1))})
K = 4
BATCHES = [2**e for e in range(10, 27, 2)]  # samples
# What NumPy must do without, to be held to an instruction set: the newest's extensions by the names of NumPy 2.4.
WITHOUT = {"avx2": "X86_V4 AVX512_ICL AVX512_SPR", "plain": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"}


def rewards(n, dtype=torch.float32):
    groups = max(1, min(4096, 2**22 // n))
    x = torch.randn(groups, n, generator=torch.Generator().manual_seed(n))
    return x > 0 if dtype == torch.bool else x.to(dtype)


def measure(candidates, quick):
    timings = side_by_side(candidates, rounds=5 if quick else 15, seconds_a_round=0.01 if quick else 0.03)
    return {name: {"median": t.median, "low": t.low, "high": t.high} for name, t in timings.items()}


def lengths(n, groups):
    """Any from n/2 to 3n/2, n on average."""
    generator = torch.Generator().manual_seed(n)
    half = torch.randint(n // 2, n + n // 2 + 1, (groups // 2,), generator=generator)
    all_of_them = torch.cat([half, 2 * n - half, torch.full((groups % 2,), n)])
    return all_of_them[torch.randperm(groups, generator=generator)]


def forward(n, quick):
    """The op, what it may be compared with, and its other element types and forms."""
    x = rewards(n)
    array, copy = x.numpy(), torch.empty_like(x)
    binary, half, wide = (rewards(n, dtype) for dtype in (torch.bool, torch.bfloat16, torch.float64))
    zeros_and_ones, tenth = (x > 0).float(), torch.where(torch.rand(x.shape) < 0.1, torch.nan, x)
    values, offsets, k = x.flatten(), torch.arange(0, x.numel() + 1, n), torch.tensor(K)
    ragged = torch.nn.functional.pad(lengths(n, len(x)).cumsum(0), (1, 0))
    transform = torch.ops.pkpo.transform
    candidates = {
        "op": lambda: transform(x, K),
        "torch": lambda: peers.torch_formulation(x, K),
        "np.sort": lambda: np.sort(array, axis=-1),
        "copy": lambda: copy.copy_(x),
        "bool": lambda: transform(binary, K),
        "0/1": lambda: transform(zeros_and_ones, K),
        "bfloat16": lambda: transform(half, K),
        "float64": lambda: transform(wide, K),
        "grouped": lambda: transform(values, offsets, k),
        "ragged": lambda: transform(values, ragged, k),
        "a tenth NaN": lambda: transform(tenth, K),
        "backward": lambda: torch.ops.pkpo._transform_backward(x, x, K),
    }
    if not quick:
        torch.compiler.reset()  # a graph of its own for every size, not one for all
        compiled = torch.compile(peers.torch_formulation, dynamic=False)
        candidates["torch compiled"] = lambda: compiled(x, K)
    return measure(candidates, quick)


def threads(n, quick):
    """The op on one thread and on two, taking turns."""
    x = rewards(n)

    def on(count):
        def call():
            torch.set_num_threads(count)
            torch.ops.pkpo.transform(x, K)

        return call

    seconds = measure({"1": on(1), "2": on(2)}, quick)
    torch.set_num_threads(1)
    return seconds


def sweep():
    """Nanoseconds a sample at every n up to 130, and beside the powers of two up to 8,192, in batches of 2^18 samples."""
    transform = torch.ops.pkpo.transform
    batches = {n: torch.randn(2**18 // n, n, generator=torch.Generator().manual_seed(n)) for n in NEIGHBOURS}
    candidates = {n: (lambda x=x: transform(x, min(K, x.shape[1]))) for n, x in batches.items()}
    timings = side_by_side(candidates, rounds=7, seconds_a_round=0.002)
    return {str(n): timing.median / batches[n].numel() * 1e9 for n, timing in timings.items()}


def batches():
    """Nanoseconds a sample of groups of 64 in batches of 2^10 to 2^26 samples."""
    torch.set_num_threads(1)
    values = torch.randn(max(BATCHES), generator=torch.Generator().manual_seed(0)).view(-1, 64)
    candidates = {n: (lambda x=values[: n // 64]: torch.ops.pkpo.transform(x, K)) for n in BATCHES}
    timings = side_by_side(candidates, rounds=7, seconds_a_round=0.02)
    return {str(n): timing.median / n * 1e9 for n, timing in timings.items()}


def measure_here(quick):
    """All measurements on the instruction set in use, but those of batches()."""
    torch.set_num_threads(1)
    isa = _backends.cpu_isa_in_use()
    sizes = {
        str(n): {"forward": forward(n, quick), "threads": threads(n, quick)}
        for n in tqdm(SIZES, desc=isa, leave=False, disable=None)
    }
    return {"sizes": sizes} if quick else {"sizes": sizes, "sweep": sweep()}


def measure_in_processes(isa, quick):
    def run(what, **environment):
        held_to = {"PKPO_CPU_ISA": isa, "NPY_DISABLE_CPU_FEATURES": WITHOUT.get(isa, "")}
        command = [sys.executable, "-m", "bench.cpu", what, *(["--quick"] if quick else [])]
        environment = os.environ | held_to | environment
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout)

    results = run("--here")
    if not quick:
        keep = str(2**31)
        results["batches"] = run("--batches", MALLOC_MMAP_THRESHOLD_=keep, MALLOC_TRIM_THRESHOLD_=keep)
    return results


def ratios(n, row):
    """The ratios that matter, by the names of the table's columns."""
    t = {name: timing["median"] for name, timing in row["forward"].items()}
    fastest = min(value for name, value in t.items() if name.startswith("torch"))
    return {
        "ns/sample": t["op"] / rewards(int(n)).numel() * 1e9,
        "/torch": t["op"] / fastest,
        "/np.sort": t["op"] / t["np.sort"],
        "/copy": t["op"] / t["copy"],
        "bool/copy": t["bool"] / t["copy"],
        "0,1/copy": t["0/1"] / t["copy"],
        "bf16": t["bfloat16"] / t["op"],
        "float64": t["float64"] / t["op"],
        "grouped": t["grouped"] / t["op"],
        "ragged": t["ragged"] / t["op"],
        "10% NaN": t["a tenth NaN"] / t["op"],
        "backward": t["backward"] / t["op"],
        "2 threads": row["threads"]["1"]["median"] / row["threads"]["2"]["median"],
    }


def table(isa, results):
    rows = {n: ratios(n, row) for n, row in results["sizes"].items()}
    columns = list(next(iter(rows.values())))
    lines = [f"{isa}, one thread, float32: time of the op, and over its peers; other forms over the op on float32", ""]
    lines.append(f"{'n':>8}" + "".join(f"{column:>10}" for column in columns))
    for n, row in rows.items():
        lines.append(f"{n:>8}" + "".join(f"{row[column]:>10.{3 if column == '/torch' else 2}f}" for column in columns))
    if "sweep" in results:
        times = list(results["sweep"].values())
        steps = {n: max(a / b, b / a) for n, a, b in zip(list(results["sweep"])[1:], times, times[1:])}
        worst = max(steps, key=steps.get)
        lines.append(
            f"\nlargest step of the time a sample from one n of the sweep to the next: {steps[worst]:.2f} x, at n = {worst}"
        )
    if "batches" in results:
        lines.append(words_of_batches(results["batches"]))
    return "\n".join(lines)


def words_of_batches(batches):
    """For the end of a table."""
    found = ", ".join(f"{time:.3g}" for time in batches.values())
    exponents = [int(n).bit_length() - 1 for n in batches]
    return (
        f"n = 64 in batches of 2^{exponents[0]}, 2^{exponents[1]}, ..., 2^{exponents[-1]} samples, glibc told to keep the "
        f"memory of results: {found} ns a sample."
    )


def markdown(machine, isas):
    """Words and table for the documents, of the fastest instruction set: the op over its peers."""
    isa, of_isa = next(iter(isas.items()))
    columns = {
        "ns/sample": "ns a sample",
        "/torch": "time over torch's ops",
        "/np.sort": "time over `np.sort` alone",
        "bool/copy": "bool: time over a copy",
        "ragged": "lengths n/2 to 3n/2 over dense",
        "backward": "backward over forward",
    }
    words = (
        f"`make bench`: {machine['cpu']}, {isa}, one thread, float32, torch {machine['versions']['torch']}, "
        f"commit {machine['commit']}; medians."
    )
    lines = ["| n | " + " | ".join(columns.values()) + " |", "|---|" + "---|" * len(columns)]
    for n, row in of_isa["sizes"].items():
        found = ratios(n, row)
        lines.append(f"| {int(n):,} | " + " | ".join(f"{found[column]:.3g}" for column in columns) + " |")
    return words, [*lines, "", words_of_batches(of_isa["batches"])]


def picture(machine, isas, path):
    """Nanoseconds a sample over n."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    best, *others = isas
    sizes = isas[best]["sizes"]
    n = [int(size) for size in sizes]
    samples = [rewards(size).numel() for size in n]

    def line(isa, name, label, **style):
        rows = isas[isa]["sizes"].values()
        t = [row["forward"][name] for row in rows]
        axes.plot(n, [v["median"] / s * 1e9 for v, s in zip(t, samples)], label=label, **style)
        low, high = ([v[end] / s * 1e9 for v, s in zip(t, samples)] for end in ("low", "high"))
        axes.fill_between(n, low, high, alpha=0.15, color=style["color"])

    line(best, "torch", "torch: sort, gather, cumsum, scatter", color="0.5", marker="s")
    line(best, "np.sort", f"np.sort alone ({best})", color="tab:orange", marker="^")
    line(best, "op", f"pkpo transform ({best})", color="tab:blue", marker="o")
    for isa, color in zip(others, ("tab:cyan", "tab:purple")):
        line(isa, "op", f"pkpo transform ({isa})", color=color, marker="o", linestyle="--")
    line(best, "bool", "pkpo transform of bool", color="tab:green", marker="o")
    line(best, "copy", "copy of the rewards", color="k", linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="samples a group, n", ylabel="ns a sample, one thread")
    axes.set_title(f"{machine['cpu']}, float32, k = {K}; bands: 20th to 80th percentile", fontsize=10)
    figure.legend(fontsize=8, ncols=3, loc="outside lower center")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)


def main():
    parser = report.options(__doc__, "fewer rounds, no compiled peer")
    parser.add_argument("--isa", help="one instruction set only, and nothing is written")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--batches", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here or arguments.batches:
        print(json.dumps(measure_here(arguments.quick) if arguments.here else batches()))
        return
    isas = [arguments.isa] if arguments.isa else _backends.available_cpu_isas()
    results = {"machine": described("numpy"), "isas": {}}
    for isa in isas:
        results["isas"][isa] = measure_in_processes(isa, arguments.quick)
        print(table(isa, results["isas"][isa]) + "\n")
    if not arguments.quick and not arguments.isa:
        machine = results.pop("machine")
        report.write("cpu", machine, results, *markdown(machine, results["isas"]))
        picture(machine, results["isas"], report.RESULTS / "cpu.png")


if __name__ == "__main__":
    main()
