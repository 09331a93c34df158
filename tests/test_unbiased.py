"""End to end: the policy gradient on transformed rewards is, in the mean, the gradient of pass@k, max@k and min@k.

A policy over five outcomes, p = softmax(theta). The best of k draws is at most the j-th lowest reward with probability
F_j^k, F_j the sum of p over the outcomes up to it, so that E[max] = sum_j r_j (F_j^k - F_{j-1}^k), whose gradient in theta is
taken in float64. The estimate, the mean over groups of sum_i s_i grad log p(x_i), must lie within its confidence interval.
"""

import pytest
import torch

import pkpo_kernels

THETA = torch.tensor([0.5, 0.0, -0.5, -1.0, 0.2], dtype=torch.float64)
REWARDS = {
    "max@k": torch.tensor([0.0, 1.5, 4.0, 0.3, -2.0], dtype=torch.float64),
    "pass@k": torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64),
}
GROUPS = 40_000
SIGMAS = 4.5  # 2 in 300,000 for one figure; there are about 700, and the seeds are fixed


def exact_gradient(reward, k, objective):
    theta = THETA.clone().requires_grad_()
    sign = -1 if objective == "min" else 1
    order = (sign * reward).argsort()
    below = torch.softmax(theta, 0)[order].cumsum(0)
    chance = torch.diff(below**k, prepend=below.new_zeros(1))
    value = sign * (chance * (sign * reward)[order]).sum()
    return torch.autograd.grad(value, theta)[0]


def draw(count, seed):
    p = torch.softmax(THETA, 0)
    return torch.multinomial(p, count, replacement=True, generator=torch.Generator().manual_seed(seed))


def score(x):
    """grad log p(x) in theta: one-hot less p."""
    return torch.nn.functional.one_hot(x, len(THETA)).double() - torch.softmax(THETA, 0)


def within_interval(per_group, exact, record_property, name):
    mean, error = per_group.mean(0), per_group.std(0) / len(per_group) ** 0.5
    z = ((mean - exact) / error).abs().max().item()
    record_property("unbiased", (name, exact.tolist(), mean.tolist(), error.tolist(), z))
    assert z < SIGMAS, (mean, exact, error)


@pytest.mark.parametrize("rewards", REWARDS)
@pytest.mark.parametrize("baseline", ["none", "loo", "loo-1"])
@pytest.mark.parametrize("n,k", [(4, 1), (4, 2), (4, 3), (8, 4), (16, 2), (16, 8), (8, 8)])
def test_dense(rewards, baseline, n, k, record_property):
    if baseline == "loo" and k == n:
        return
    reward = REWARDS[rewards]
    x = draw(GROUPS * n, seed=100 * n + k).reshape(GROUPS, n)
    for objective in ("max", "min"):
        s = pkpo_kernels.transform(reward[x], k, baseline=baseline, objective=objective)
        per_group = (s.unsqueeze(-1) * score(x)).sum(1)
        goal = rewards if objective == "max" else {"max@k": "min@k", "pass@k": "pass^k"}[rewards]
        name = f"{goal} {baseline} n={n} k={k}"
        within_interval(per_group, exact_gradient(reward, k, objective), record_property, name)


@pytest.mark.parametrize("rewards", REWARDS)
@pytest.mark.parametrize("baseline", ["none", "loo", "loo-1"])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_ragged(rewards, baseline, k, record_property):
    """Groups of k + 1 to 12 samples in random order, some of which could not be scored, whichever those are."""
    reward = REWARDS[rewards]
    generator = torch.Generator().manual_seed(k)
    lengths = torch.randint(k + 2, 13, (GROUPS,), generator=generator)
    ids = torch.repeat_interleave(torch.arange(GROUPS), lengths)
    lost = torch.zeros(len(ids), dtype=torch.bool)
    lost[torch.nn.functional.pad(lengths.cumsum(0), (1, 0))[:-1]] = True  # one sample of every group
    shuffle = torch.randperm(len(ids), generator=generator)
    ids, lost = ids[shuffle], lost[shuffle]
    x = draw(len(ids), seed=k)
    s = pkpo_kernels.transform(reward[x], k, baseline=baseline, group_ids=ids, mask=~lost)
    per_group = torch.zeros(GROUPS, len(THETA), dtype=torch.float64).index_add(0, ids, s.unsqueeze(-1) * score(x))
    within_interval(per_group, exact_gradient(reward, k, "max"), record_property, f"{rewards} {baseline} ragged k={k}")
