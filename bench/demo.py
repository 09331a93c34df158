"""``make demo``: train the paper's toy problem (bench/paper/toy.py) for pass@k, then measure groups per second."""

from pathlib import Path

import torch
from tqdm import tqdm

import pkpo_kernels
from bench import peers
from bench.paper import toy
from bench.timing import side_by_side

OUT = Path("demo")


def toy_problem():
    print(
        f"Toy problem: policy N(theta, {toy.SIGMA}), reward x^2 on [0, 1]; n = {toy.SAMPLES}, {toy.GROUPS} groups a step\n"
    )
    paths, optima = toy.learn()
    print("\n  k   learned theta   optimum   E[max of k] learned   at the optimum")
    for k, learned, best, *values in toy.rows(paths, optima):
        print(f"{k:3d}   {learned:13.4f}   {best:7.4f}   {values[0]:19.4f}   {values[1]:14.4f}")
    OUT.mkdir(exist_ok=True)
    toy.draw(paths, optima, OUT / "toy_problem.png")
    print(f"\nPicture: {OUT / 'toy_problem.png'}")


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
    toy_problem()
    throughput()
    print()
    print(pkpo_kernels.info())
