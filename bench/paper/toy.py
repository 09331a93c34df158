"""The paper's toy problem: what each k optimises, and where training for it ends: python -m bench toy.

The policy draws x from N(theta, 0.1); the reward is x^2 for x in [0, 1] and 0 outside (arXiv 2505.15201). Training for a
single sample stays clear of the cliff at 1; training for the best of k samples dares to go nearer, the more so the larger k.
"""

import math

import matplotlib
import numpy as np
import torch
from tqdm import tqdm

import pkpo_kernels  # noqa: F401  registers the ops
from bench import report
from bench.machine import described

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SIGMA, SAMPLES, GROUPS, STEPS = 0.1, 16, 4096, 400
KS = (1, 2, 4, 8, 16)


def reward(x):
    return torch.where((x >= 0) & (x <= 1), x * x, 0.0)


def train(k, steps, progress):
    """Policy gradient on sum_i s_i grad log p(x_i), Adam with a falling step. Returns theta after every step."""
    generator = torch.Generator().manual_seed(k)
    theta = torch.tensor(0.5, requires_grad=True)
    optimizer = torch.optim.Adam([theta], lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-4)
    path = []
    for _ in range(steps):
        with torch.no_grad():
            x = theta + SIGMA * torch.randn(GROUPS, SAMPLES, generator=generator)
            s = torch.ops.pkpo.transform(reward(x), k)
        log_p = -((x - theta) ** 2) / (2 * SIGMA**2)
        loss = -(s * log_p).sum() / GROUPS
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        path.append(theta.item())
        progress.update()
    return path


def expected_best(theta, k, points=20_001):
    """E[max of k rewards] by numerical integration: the reward exceeds r where x lies in (sqrt(r), 1]. A float64 tensor,
    differentiable in theta."""
    r = torch.linspace(0, 1, points, dtype=torch.float64)
    normal = torch.distributions.Normal(torch.as_tensor(theta, dtype=torch.float64), SIGMA)
    exceeds = (normal.cdf(torch.ones_like(r)) - normal.cdf(r.sqrt())).clamp(min=0)
    return torch.trapezoid(1 - (1 - exceeds) ** k, r)


def optimum(k):
    """The theta with the largest expected best of k, by golden-section search on the integral."""
    low, high, ratio = 0.5, 1.2, (math.sqrt(5) - 1) / 2
    for _ in range(40):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        if expected_best(a, k) > expected_best(b, k):
            high = b
        else:
            low = a
    return (low + high) / 2


def learn(steps=STEPS):
    """({k: thetas after every step}, {k: optimum})"""
    with tqdm(total=len(KS) * steps, unit="step", desc="training") as progress:
        paths = {k: train(k, steps, progress) for k in KS}
    return paths, {k: optimum(k) for k in KS}


def rows(paths, optima):
    """[(k, learned theta, optimum, E[max of k] at the one, at the other)]; learned: the mean of the last 50 steps."""
    learned = {k: sum(path[-50:]) / len(path[-50:]) for k, path in paths.items()}
    return [
        (k, learned[k], optima[k], expected_best(learned[k], k).item(), expected_best(optima[k], k).item())
        for k in paths
    ]


def draw(paths, optima, out):
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for color, (k, path) in zip(plt.cm.viridis(np.linspace(0, 0.9, len(KS))), paths.items()):
        left.plot(path, color=color, label=f"k = {k}")
        left.axhline(optima[k], color=color, linestyle=":", linewidth=1)
        grid = np.linspace(0.6, 1.2, 61)
        right.plot(grid, [expected_best(theta, k, 2001).item() for theta in grid], color=color)
        right.plot(path[-1], expected_best(path[-1], k).item(), "o", color=color)
    left.set(xlabel="step", ylabel="theta", title="Learned theta; dotted: the optimum for that k")
    left.legend(loc="lower right")
    right.set(xlabel="theta", ylabel="E[max of k rewards]", title="What each k optimises; dot: where training ended")
    figure.savefig(out, dpi=120)


def main():
    quick = report.options(__doc__, "few steps").parse_args().quick
    paths, optima = learn(20 if quick else STEPS)
    lines = ["| k | learned theta | optimum | E[max of k] learned | at the optimum |", "|---|---|---|---|---|"]
    for k, *values in rows(paths, optima):
        lines.append(f"| {k} | " + " | ".join(f"{value:.4f}" for value in values) + " |")
    print("\n".join(lines))
    if quick:
        return
    grid = [round(0.6 + 0.02 * i, 2) for i in range(31)]
    landscape = {k: [expected_best(theta, k, 2001).item() for theta in grid] for k in range(1, 17)}
    content = {"rows": rows(paths, optima), "theta": grid, "landscape": landscape}
    words = f"`python -m bench toy`: n = {SAMPLES}, {GROUPS} groups a step, {STEPS} steps; optima by integration."
    report.write("toy", described(), content, words, lines)
    draw(paths, optima, report.RESULTS / "toy_problem.png")


if __name__ == "__main__":
    main()
