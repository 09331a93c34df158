"""What it costs to have groups in other shapes than a matrix, beside the dense op: python -m bench grouping.

65,536 float32 rewards of 4,096 prompts, 16 each, k = 4: the op on a matrix, on offsets, and the whole call from ids to output
with ids as an int64 tensor and as uuid strings (a list, and the object array that verl holds), in random order.
"""

import uuid

import numpy as np
import torch

import pkpo_kernels
from bench import report
from bench.machine import described
from bench.timing import side_by_side, table

GROUPS, N, K = 4096, 16, 4


def main():
    quick = report.options(__doc__, "few rounds").parse_args().quick
    lines, results = [], {}
    for threads in sorted({1, torch.get_num_threads()}):
        timings = measure(threads, rounds=3 if quick else 31)
        title = f"{threads} thread{'s' * (threads > 1)}"
        lines += ["", *table(timings, over="dense (4096, 16)", unit="ms", title=title)]
        results[threads] = {name: t._asdict() for name, t in timings.items()}
    print("\n".join(lines))
    if not quick:
        about = described("numpy")
        words = (
            f"`python -m bench grouping`: {GROUPS:,} groups of {N} float32 rewards, k = {K}. {about['cpu']}, torch "
            f"{about['versions']['torch']}, commit {about['commit']}."
        )
        report.write("grouping", about, {"threads": results}, words, lines[1:])


def measure(threads, rounds):
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(GROUPS, N, generator=generator)
    shuffle = torch.randperm(GROUPS * N, generator=generator)
    ids = torch.arange(GROUPS).repeat_interleave(N)[shuffle]
    names = [str(uuid.UUID(int=i)) for i in range(GROUPS)]
    strings = [names[i] for i in ids.tolist()]
    objects = np.array(strings, dtype=object)
    values, offsets, k = x.flatten(), torch.arange(0, GROUPS * N + 1, N), torch.tensor(K)
    k_groups = torch.full((GROUPS,), K)
    transform = torch.ops.pkpo.transform
    absent = torch.where(torch.rand(x.shape, generator=generator) < 0.1, torch.nan, x)
    candidates = {
        "dense (4096, 16)": lambda: transform(x, K),
        "dense, a k a group": lambda: transform(x, k_groups),
        "dense, a tenth absent": lambda: transform(absent, K),
        "offsets, equal lengths": lambda: transform(values, offsets, k),
        "int64 ids to output": lambda: pkpo_kernels.transform(values, K, group_ids=ids),
        "uuid strings to output": lambda: pkpo_kernels.transform(values, K, group_ids=strings),
        "uuid object array to output": lambda: pkpo_kernels.transform(values, K, group_ids=objects),
        "group_by of int64 ids alone": lambda: pkpo_kernels.group_by(ids),
    }
    return side_by_side(candidates, rounds=rounds)


if __name__ == "__main__":
    main()
