"""What this package is measured against, each written once and checked against the oracle in tests/test_peers.py.

All take rewards (groups, n) and give the transformed rewards, baseline loo-1, of the same shape.
"""

import numpy as np
import torch


def numpy_loop(rewards, k):
    """A Python loop over prompts, each with its weights one by one: how the method is pasted into trainers today."""
    return np.stack([_numpy_group(group, k) for group in rewards])


def _numpy_group(rewards, k):
    n = len(rewards)
    order = np.argsort(rewards)
    x = rewards[order]
    weight = np.array([_weight(n, k, q) for q in range(n)])
    y = np.empty_like(x)
    y[order] = np.cumsum(weight * np.diff(x, prepend=x[0]))
    return y


def _weight(n, k, q):
    return k / n * np.prod(np.arange(q - k + 2, q + 1) / np.arange(n - k + 1, n)) if q >= k - 1 else 0.0


def torch_formulation(rewards, k):
    """Sort, gather, cumsum, scatter over all groups at once: the best that torch's own ops give. Weights in float64."""
    n = rewards.shape[-1]
    x, order = rewards.sort(-1)
    q = torch.arange(n - 1, 0, -1, dtype=torch.float64, device=rewards.device)
    falling = torch.cat([q.new_tensor([k / n]), (q + 1 - k).clamp(min=0) / q]).cumprod(0).flip(0)
    gaps = torch.diff(x, prepend=x[..., :1])
    y = (gaps * falling.to(rewards.dtype)).cumsum(-1)
    return torch.empty_like(y).scatter_(-1, order, y)
