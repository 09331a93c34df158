"""``python -m bench.call``: what a call costs beside torch's smallest op, on 8 x 8 float32, no gradient needed."""

import torch

import pkpo_kernels  # noqa: F401
from bench.timing import side_by_side


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
    base = timings["torch.ops.aten.neg.default(x)"].median
    print(f"{'call':<42}{'median us':>10}{'20%-80%':>16}{'over neg':>10}")
    for name, timing in timings.items():
        spread = f"{timing.low * 1e6:.2f}-{timing.high * 1e6:.2f}"
        print(f"{name:<42}{timing.median * 1e6:>10.2f}{spread:>16}{timing.median / base:>10.2f}")


if __name__ == "__main__":
    main()
