"""A short list of calls that reach every kernel: on a GPU, to run under compute-sanitizer (python tests/gpu_calls.py); of the
kernels compiled for the CPU, to run under the watch over races (python tests/gpu_calls.py --on-cpu)."""

import argparse
import contextlib

import torch
from backends import BACKENDS

BASELINES = ("none", "loo", "loo-1")


def both(ops, rewards, *k_and_offsets, baseline="loo-1"):
    """The op and its gradient."""
    ops.transform(rewards, *k_and_offsets, baseline=baseline)
    ops.transform_backward(rewards.nan_to_num().clamp(-9, 9), rewards, *k_and_offsets, baseline=baseline)


def groups_of_one_size(ops, device, most=10_000):
    for dtype in (torch.float32, torch.float64):
        for n in (3, 8, 16, 31, 64, 100, 256, 300, 512, 1001, 2048, 4096, 6001, 9000):
            if n > most:
                break
            rewards = torch.randn(5, n, dtype=dtype, device=device)
            rewards[0, ::3] = torch.nan
            rewards[1, 1::2] = rewards[1, 0]
            rewards[2, 0], rewards[3, -1] = torch.inf, -torch.inf
            for baseline in BASELINES:
                both(ops, rewards, 2, baseline=baseline)
            ops.max_at_k(rewards, 2)
    for dtype in (torch.float16, torch.bool, torch.int64):
        for n in (7, 100, 3000):
            rewards = (torch.randn(3 * n + 1, device=device) * 9).to(dtype)[1:].view(3, n)
            k = torch.tensor([1, 2, 3], device=device)
            both(ops, rewards, k) if dtype.is_floating_point else ops.transform(rewards, k)


def many_groups(ops, device, samples):
    """Of one size, then of all sizes: of one k, and of a k each."""
    for n in (2, 4, 8, 16, 31):
        rewards = torch.randn(samples // n, n, device=device)
        rewards[0, ::3] = torch.nan
        for baseline in ("none", "loo-1"):
            both(ops, rewards, 2, baseline=baseline)
    lengths = torch.arange(samples // 64, device=device) * 7 % 40
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    rewards = torch.randn(int(offsets[-1]), device=device)
    for k in (torch.tensor(3, device=device), lengths.clamp(min=1)):
        for baseline in BASELINES:
            both(ops, rewards, offsets, k, baseline=baseline)


def groups_of_blocks(ops, device):
    """Few of many groups, so that a block that looks for its own finds several, and looks more than once."""
    lengths = torch.ones(1000, dtype=torch.int64, device=device)
    lengths[::84] = torch.arange(12, device=device) * 250 + 520
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    rewards, k = torch.randn(int(offsets[-1]), device=device), torch.tensor(4, device=device)
    both(ops, rewards, offsets, k)
    both(ops, rewards.double(), offsets, k, baseline="none")


def large_groups(ops, device, dtypes, last=20_000, samples=20_000):
    """``samples``, of which the last ones are of no group. Warps that list the large groups find some before their own."""
    lengths = torch.tensor([3, 0, 17, 380, 4600, *[1] * 200, last - 5200], device=device)
    offsets, k = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]), torch.arange(len(lengths), device=device) % 7 + 1
    rewards = torch.randn(samples, device=device)
    rewards[-3000:] = 0.5
    for dtype in dtypes:
        both(ops, rewards.to(dtype), offsets, k)


def on_gpu():
    ops, types = BACKENDS["cuda"], (torch.float32, torch.float64)
    groups_of_one_size(ops, "cuda")
    many_groups(ops, "cuda", samples=2**18)  # more than there are threads
    ops.transform(torch.randn(4000, 1000, device="cuda"), 2)  # more than the device does at once by blocks
    groups_of_blocks(ops, "cuda")
    # A launch for all passes over large groups; a launch for each where there may be more of them.
    for samples in (20_000, 800_000):
        large_groups(ops, "cuda", types, samples=samples)
    large_groups(ops, "cuda", types[:1], last=180_000, samples=180_000)
    torch.cuda.synchronize()


def on_cpu():
    ops, types = BACKENDS["cuda on cpu"], (torch.float32, torch.float64)
    for context, most in ((contextlib.nullcontext, 10_000), (ops.small_batches_fit, 512)):
        with context():
            groups_of_one_size(ops, "cpu", most)
            many_groups(ops, "cpu", samples=2**13)
    groups_of_blocks(ops, "cpu")
    for context in (contextlib.nullcontext, ops.a_launch_for_each_pass):
        with context():
            large_groups(ops, "cpu", types)
            large_groups(ops, "cpu", types[:1], last=140_000, samples=140_000)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--on-cpu", action="store_true")
    torch.manual_seed(0)
    on_cpu() if parser.parse_args().on_cpu else on_gpu()
    print("done")
