"""A short list of calls that reach every kernel, to run under compute-sanitizer: python tests/gpu_calls.py."""

import torch

import pkpo_kernels  # noqa: F401

torch.manual_seed(0)
ops = torch.ops.pkpo
for dtype in (torch.float32, torch.float64):
    for n in (3, 8, 16, 31, 64, 100, 256, 300, 512, 1000, 2048, 4096, 6000, 9000):
        rewards = torch.randn(3, n, dtype=dtype, device="cuda")
        rewards[0, ::3] = torch.nan
        for baseline in ("none", "loo", "loo-1"):
            ops.transform(rewards, 2, baseline=baseline)
            ops._transform_backward(rewards.nan_to_num(), rewards, 2, baseline=baseline)
        ops.max_at_k(rewards, 2)
for n in (2, 4, 8, 16, 31):  # more samples than there are threads
    rewards = torch.randn(2**18 // n, n, device="cuda")
    rewards[0, ::3] = torch.nan
    for baseline in ("none", "loo-1"):
        ops.transform(rewards, 2, baseline=baseline)
        ops._transform_backward(rewards.nan_to_num(), rewards, 2, baseline=baseline)
# A launch for all passes over large groups; a launch for each where samples follow, though they are of no group.
offsets = torch.tensor([0, 3, 3, 20, 400, 5000, 20_000], device="cuda")
for samples in (20_000, 800_000):
    rewards, k = torch.randn(samples, device="cuda"), torch.arange(1, 7, device="cuda")
    for dtype in (torch.float32, torch.float64):
        ops.transform(rewards.to(dtype), offsets, k)
        ops._transform_backward(rewards.to(dtype), rewards.to(dtype), offsets, k)
torch.cuda.synchronize()
print("done")
