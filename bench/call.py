"""``python -m bench.call``: what a call costs beside torch's smallest op, on 8 x 8 float32, no gradient needed."""

import torch

import pkpo_kernels  # noqa: F401
from bench.timing import side_by_side, table


def main():
    torch.set_num_threads(1)
    x = torch.randn(8, 8)
    neg, transform = torch.ops.aten.neg.default, torch.ops.pkpo.transform
    candidates = {
        "torch.ops.aten.neg.default(x)": lambda: neg(x),
        "torch.ops.pkpo.transform(x, 4)": lambda: transform(x, 4),
        "torch.ops.pkpo.transform.default(x, 4)": lambda: transform.default(x, 4),
    }
    timings = side_by_side(candidates, rounds=41)
    print(table(timings, over="torch.ops.aten.neg.default(x)", unit="us"))


if __name__ == "__main__":
    main()
