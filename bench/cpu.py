"""``make bench``: the CPU kernel beside its peers, as ratios measured side by side; writes bench/results/cpu.json.

Peers: torch's own ops (sort, gather, cumsum, scatter), eager and compiled; ``np.sort`` of the array alone; a copy of it.
Rewards are standard normal unless said otherwise, k = 4, baseline loo-1. A batch has 4,096 groups, fewer where that would be
more than 2^22 samples.
"""

import argparse
import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import pkpo_kernels
from bench import peers
from bench.timing import side_by_side

RESULT = Path(__file__).parent / "results" / "cpu.json"
SIZES = (8, 16, 32, 64, 256, 1024, 4096, 10_000, 100_000, 1_000_000)
K = 4


def rewards(n, dtype=torch.float32):
    groups = max(1, min(4096, 2**22 // n))
    x = torch.randn(groups, n, generator=torch.Generator().manual_seed(n))
    return x > 0 if dtype == torch.bool else x.to(dtype)


def measure(candidates, quick):
    timings = side_by_side(candidates, rounds=5 if quick else 15, seconds_a_round=0.01 if quick else 0.05)
    return {name: {"median": t.median, "low": t.low, "high": t.high} for name, t in timings.items()}


def forward(n, quick):
    """The op, what it may be compared with, and its other element types and forms."""
    x = rewards(n)
    array, copy = x.numpy(), torch.empty_like(x)
    binary, half, wide = (rewards(n, dtype) for dtype in (torch.bool, torch.bfloat16, torch.float64))
    values, offsets, k = x.flatten(), torch.arange(0, x.numel() + 1, n), torch.tensor(K)
    transform = torch.ops.pkpo.transform
    candidates = {
        "op": lambda: transform(x, K),
        "torch": lambda: peers.torch_formulation(x, K),
        "np.sort": lambda: np.sort(array, axis=-1),
        "copy": lambda: copy.copy_(x),
        "bool": lambda: transform(binary, K),
        "bfloat16": lambda: transform(half, K),
        "float64": lambda: transform(wide, K),
        "grouped": lambda: transform(values, offsets, k),
        "backward": lambda: torch.ops.pkpo._transform_backward(x, x, K),
    }
    if not quick:
        torch.compiler.reset()  # a graph of its own for every size, not one for all
        compiled = torch.compile(peers.torch_formulation, dynamic=False)
        candidates["torch compiled"] = lambda: compiled(x, K)
    return measure(candidates, quick)


def threads(n, quick):
    x, seconds = rewards(n), {}
    for count in (1, 2):
        torch.set_num_threads(count)
        seconds[str(count)] = measure({"op": lambda: torch.ops.pkpo.transform(x, K)}, quick)["op"]
    torch.set_num_threads(1)
    return seconds


def machine():
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {
        "cpu": model[0].partition(":")[2].strip() if model else platform.processor(),
        "cores": os.cpu_count(),
        "versions": {"pkpo_kernels": pkpo_kernels.__version__, "torch": torch.__version__, "numpy": np.__version__},
        "commit": commit,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def table(results):
    """The ratios that matter, as text."""
    lines = ["One thread, float32: time of the op, and the op over its peers; other forms over the op on float32", ""]
    lines.append(
        f"{'n':>8}{'ns/sample':>10}{'/torch':>9}{'/np.sort':>9}{'/copy':>7}",
    )
    lines[-1] += f"{'bool/copy':>11}{'bf16':>7}{'float64':>9}{'grouped':>9}{'backward':>10}{'2 threads':>11}"
    for n, row in results["sizes"].items():
        t = {name: timing["median"] for name, timing in row["forward"].items()}
        fastest = min(value for name, value in t.items() if name.startswith("torch"))
        samples = rewards(int(n)).numel()
        speedup = row["threads"]["1"]["median"] / row["threads"]["2"]["median"]
        lines.append(
            f"{n:>8}{t['op'] / samples * 1e9:>10.1f}{t['op'] / fastest:>9.3f}{t['op'] / t['np.sort']:>9.2f}"
            f"{t['op'] / t['copy']:>7.0f}{t['bool'] / t['copy']:>11.1f}{t['bfloat16'] / t['op']:>7.2f}"
            f"{t['float64'] / t['op']:>9.2f}{t['grouped'] / t['op']:>9.2f}{t['backward'] / t['op']:>10.2f}{speedup:>10.2f}x"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no compiled peer, and nothing is written")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    results = {"machine": machine(), "sizes": {}}
    for n in tqdm(SIZES, desc="sizes", leave=False):
        results["sizes"][str(n)] = {"forward": forward(n, quick), "threads": threads(n, quick)}
    print(table(results))
    if not quick:
        RESULT.write_text(json.dumps(results, indent=1) + "\n")
        print(f"\nWritten: {RESULT}")


if __name__ == "__main__":
    main()
