"""Bias and variance of the gradient estimates with the three baselines: python -m bench variance.

On the toy problem (bench/paper/toy.py) at theta = 0.9: of sum_i s_i d log p(x_i) / d theta over many groups of n samples, the
mean beside the exact gradient, which is an integral, and the variance beside that of loo-1. An estimate from twice the
samples has about half the variance: what is compared at the same n is compared at the same cost.
"""

import math

import matplotlib
import torch
from tqdm import tqdm

import pkpo_kernels  # noqa: F401  registers the ops
from bench import report
from bench.machine import described
from bench.paper.toy import SIGMA, expected_best, reward

matplotlib.use("Agg")
from matplotlib import pyplot as plt

THETA = 0.9
BASELINES = ("none", "loo", "loo-1")
NS = (2, 4, 8, 16, 32, 64)


def exact_gradient(k):
    theta = torch.tensor(THETA, dtype=torch.float64, requires_grad=True)
    [gradient] = torch.autograd.grad(expected_best(theta, k, 200_001), theta)
    return gradient.item()


def estimates(n, k, baseline, groups):
    """(mean, its standard error, variance, standard error of the variance) of the estimate from one group."""
    generator = torch.Generator().manual_seed(n)  # the same samples for every k and baseline
    found = []
    for _ in range(groups // 2**12):
        x = THETA + SIGMA * torch.randn(2**12, n, generator=generator, dtype=torch.float64)
        s = torch.ops.pkpo.transform(reward(x), k, baseline=baseline)
        found.append((s * (x - THETA) / SIGMA**2).sum(1))
    g = torch.cat(found)
    squares = (g - g.mean()).square()
    count = len(g)
    return (
        g.mean().item(),
        (g.std() / math.sqrt(count)).item(),
        g.var().item(),
        (squares.std() / math.sqrt(count)).item(),
    )


def draw(results):
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
    for axis, baseline in zip(axes, ("none", "loo")):
        for i, k in enumerate((1, 2, 4, 8, 16)):
            points = [
                (row["n"], row[baseline][2] / row["loo-1"][2]) for row in results if row["k"] == k and baseline in row
            ]
            axis.plot(*zip(*points), "o-", ms=3, color=plt.cm.viridis(i / 5), label=f"k = {k}")
        axis.axhline(1, color="0.5", lw=0.8)
        axis.set(title=f"variance of {baseline} / variance of loo-1", xlabel="n", xscale="log", yscale="log")
        axis.set_xticks(NS, [str(n) for n in NS])
        axis.minorticks_off()
    axes[0].legend(fontsize=8)
    figure.savefig(report.RESULTS / "variance.png", dpi=130)


def main():
    quick = report.options(__doc__, "few groups").parse_args().quick
    groups = 2**13 if quick else 2**18
    cases = [(n, k) for n in NS for k in sorted({1, 2, 4, 8, 16, n // 2, n}) if k <= n]
    results, worst = [], 0.0
    for n, k in tqdm(cases, unit="case"):
        exact = exact_gradient(k)
        row = {"n": n, "k": k, "exact": exact}
        for baseline in BASELINES:
            if baseline == "loo" and k == n:
                continue  # it has none: k - 1 others are too few
            row[baseline] = mean, error, _, _ = estimates(n, k, baseline, groups)
            worst = max(worst, abs(mean - exact) / error)
        results.append(row)
    lines = [
        "| n | k | exact gradient | loo-1: mean ± 95 % | variance loo-1 | none / loo-1 | loo / loo-1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results:
        mean, error, variance, _ = row["loo-1"]
        ratios = [f"{row[b][2] / variance:.2f}" if b in row else "" for b in ("none", "loo")]
        lines.append(
            f"| {row['n']} | {row['k']} | {row['exact']:.4f} | {mean:.4f} ± {1.96 * error:.4f} | {variance:.3g} | "
            + " | ".join(ratios)
            + " |"
        )
    total = sum(len(row) - 3 for row in results)
    words = (
        f"`python -m bench variance`: theta = {THETA}, {groups:,} groups a case. Of all {total} means, the farthest "
        f"from the exact gradient lies {worst:.2f} standard errors away."
    )
    print("\n".join([words, "", *lines]))
    if quick:
        return
    report.write("variance", described(), {"results": results}, words, lines)
    draw(results)


if __name__ == "__main__":
    main()
