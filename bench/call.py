"""What a call costs beside torch's smallest op, on 8 x 8 float32, no gradient needed: python -m bench call."""

import torch

import pkpo_kernels  # noqa: F401
from bench import report
from bench.machine import described
from bench.timing import side_by_side, table


def main():
    quick = report.options(__doc__, "few rounds").parse_args().quick
    torch.set_num_threads(1)
    x = torch.randn(8, 8)
    neg, transform = torch.ops.aten.neg.default, torch.ops.pkpo.transform
    candidates = {
        "torch.ops.aten.neg.default(x)": lambda: neg(x),
        "torch.ops.pkpo.transform(x, 4)": lambda: transform(x, 4),
        "torch.ops.pkpo.transform.default(x, 4)": lambda: transform.default(x, 4),
    }
    timings = side_by_side(candidates, rounds=5 if quick else 41)
    lines = table(timings, over="torch.ops.aten.neg.default(x)", unit="us", title="call, x of 8 x 8")
    print("\n".join(lines))
    if not quick:
        about = described()
        words = f"`python -m bench call`: {about['cpu']}, torch {about['versions']['torch']}, commit {about['commit']}."
        report.write("call", about, {"timings": {name: t._asdict() for name, t in timings.items()}}, words, lines)


if __name__ == "__main__":
    main()
