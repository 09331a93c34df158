"""``make demo``: train the paper's toy problem for pass@k, then measure.

The policy draws x from N(theta, 0.1); the reward is x^2 for x in [0, 1] and 0 outside (arXiv 2505.15201). Training for a
single sample stays clear of the cliff at 1; training for the best of k samples dares to go nearer, the more so the larger k.
"""

import math
from pathlib import Path

import matplotlib
import numpy as np
import torch
from tqdm import tqdm

import pkpo_kernels
from bench import peers
from bench.timing import side_by_side

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SIGMA, SAMPLES, GROUPS, STEPS = 0.1, 16, 4096, 400
KS = (1, 2, 4, 8, 16)
OUT = Path("demo")


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
    """E[max of k rewards] by numerical integration: the reward exceeds r where x lies in (sqrt(r), 1]."""
    r = torch.linspace(0, 1, points, dtype=torch.float64)
    normal = torch.distributions.Normal(torch.as_tensor(theta, dtype=torch.float64), SIGMA)
    exceeds = (normal.cdf(torch.ones_like(r)) - normal.cdf(r.sqrt())).clamp(min=0)
    return torch.trapezoid(1 - (1 - exceeds) ** k, r).item()


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


def toy_problem():
    print(f"Toy problem: policy N(theta, {SIGMA}), reward x^2 on [0, 1]; n = {SAMPLES}, {GROUPS} groups a step\n")
    with tqdm(total=len(KS) * STEPS, unit="step", desc="training") as progress:
        paths = {k: train(k, STEPS, progress) for k in KS}
    print("\n  k   learned theta   optimum   E[max of k] learned   at the optimum")
    optima = {k: optimum(k) for k in KS}
    for k, path in paths.items():
        learned = sum(path[-50:]) / 50
        values = expected_best(learned, k), expected_best(optima[k], k)
        print(f"{k:3d}   {learned:13.4f}   {optima[k]:7.4f}   {values[0]:19.4f}   {values[1]:14.4f}")
    return paths, optima


def draw(paths, optima):
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for color, (k, path) in zip(plt.cm.viridis(np.linspace(0, 0.9, len(KS))), paths.items()):
        left.plot(path, color=color, label=f"k = {k}")
        left.axhline(optima[k], color=color, linestyle=":", linewidth=1)
        grid = np.linspace(0.6, 1.2, 61)
        right.plot(grid, [expected_best(theta, k, 2001) for theta in grid], color=color)
        right.plot(path[-1], expected_best(path[-1], k), "o", color=color)
    left.set(xlabel="step", ylabel="theta", title="Learned theta; dotted: the optimum for that k")
    left.legend(loc="lower right")
    right.set(xlabel="theta", ylabel="E[max of k rewards]", title="What each k optimises; dot: where training ended")
    OUT.mkdir(exist_ok=True)
    path = OUT / "toy_problem.png"
    figure.savefig(path, dpi=120)
    print(f"\nPicture: {path}")


def throughput(k=4):
    print(
        f"\nGroups per second, float32, k = {k}, {torch.get_num_threads()} threads (medians of rounds taken in turn)\n"
    )
    print("    groups x n   torch.ops.pkpo.transform   reference   NumPy loop a group   op over loop")
    for n in (16, 64):
        rewards = torch.randn(4096, n, generator=torch.Generator().manual_seed(n))
        array = rewards.numpy()
        candidates = {
            "op": lambda rewards=rewards: torch.ops.pkpo.transform(rewards, k),
            "reference": lambda rewards=rewards: pkpo_kernels.reference.transform(rewards, k),
            "loop": lambda array=array: peers.numpy_loop(array, k),
        }
        with tqdm(total=5, desc=f"timing n={n}", leave=False) as progress:
            timings = side_by_side(candidates, rounds=5, seconds_a_round=0.1, tick=progress.update)
        op, reference, loop = (4096 / timings[name].median for name in candidates)
        print(f"{4096:>10} x {n:<3}{op:>24,.0f}{reference:>12,.0f}{loop:>21,.0f}{op / loop:>13,.0f}x")


if __name__ == "__main__":
    torch.manual_seed(0)
    draw(*toy_problem())
    throughput()
    print()
    print(pkpo_kernels.info())
