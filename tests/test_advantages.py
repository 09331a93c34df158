"""pkpo_kernels.advantages against exact arithmetic, scale by scale."""

import math

import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pkpo_kernels
from pkpo_kernels import advantages


@given(
    groups=st.lists(
        st.lists(st.none() | st.integers(-8, 8).map(lambda i: i / 4), min_size=1, max_size=9), min_size=1, max_size=5
    ),
    k=st.integers(1, 9),
    form=st.sampled_from(["none", "loo", "loo-1"]),
    scale=st.sampled_from(["sum", "mean", "std"]),
    seed=st.integers(0, 1000),
)
def test_against_exact_arithmetic(groups, k, form, scale, seed):
    flat = [(g, value) for g, group in enumerate(groups) for value in group]
    expected = [v for group in groups for v in oracle.advantages(group, k, form, scale)]
    order = torch.randperm(len(flat), generator=torch.Generator().manual_seed(seed)).tolist()
    rewards = torch.tensor([math.nan if flat[i][1] is None else flat[i][1] for i in order], dtype=torch.float64)
    found = advantages(rewards, [f"prompt {flat[i][0]}" for i in order], k, baseline=form, scale=scale)
    assert found.tolist() == pytest.approx([expected[i] for i in order], rel=1e-12, abs=1e-12)
    lengths = [len(group) for group in groups]
    in_order = torch.tensor([math.nan if value is None else value for _, value in flat], dtype=torch.float64)
    found = advantages(in_order, None, k, baseline=form, scale=scale, lengths=lengths)
    assert found.tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("scale", ["sum", "mean", "std"])
def test_dense_is_grouped(scale):
    rewards = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    rewards[2, 3] = math.nan
    ids = torch.arange(6).repeat_interleave(5)
    k = torch.tensor(3)
    dense = advantages(rewards, None, k, scale=scale)
    torch.testing.assert_close(dense.flatten(), advantages(rewards.flatten(), ids, k, scale=scale))
    masked = advantages(rewards.nan_to_num(), None, k, scale=scale, mask=~rewards.isnan())
    assert torch.equal(dense, masked)


def test_k_1_mean_is_the_leave_one_out_advantage():
    rewards = torch.randn(50, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    others = (rewards.sum(1, keepdim=True) - rewards) / 7
    torch.testing.assert_close(advantages(rewards, None, 1), rewards - others, rtol=1e-12, atol=1e-12)


def test_std_with_k_1_is_grpo():
    """Up to the n / (n - 1) of the leave-one-out mean, which the deviation takes out again."""
    rewards = torch.randn(50, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grpo = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(advantages(rewards, None, 1, scale="std"), grpo, rtol=1e-3, atol=1e-3)


def test_objective_dtype_and_gradient():
    rewards = torch.tensor([[True, False, True]])
    assert advantages(rewards[0], None, 2, objective="min").tolist() == pytest.approx([0, -2, 0])
    assert advantages(rewards, None, 2).dtype == torch.float32
    assert advantages(rewards, k=2, scale="sum").tolist() == [pytest.approx([1 / 3, 0, 1 / 3])]
    half = torch.randn(3, 8, dtype=torch.bfloat16, requires_grad=True)
    y = advantages(half, None, 2)
    assert y.dtype == torch.bfloat16 and not y.requires_grad


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda x: advantages(x, None, 2, scale="max"), 'scale must be "sum", "mean" or "std", got "max"'),
        (lambda x: advantages(x, 2), "k must be given, as the third argument or as k="),
        (lambda x: advantages(x, None, 4), "k must be between 1 and n = 3, got 4"),
        (lambda x: advantages(x[0], ["a", "b"], 2), "group_ids must have one id a reward, 3, got 2"),
        (lambda x: advantages(x, ["a", "b", "c"], 2), r"rewards must have shape \(N,\) with group_ids"),
        (lambda x: advantages([0.0], ["a"], 2), "rewards must be a tensor, got list"),
    ],
)
def test_errors(call, message):
    with pytest.raises(RuntimeError, match=message):
        call(torch.zeros(1, 3))


def test_is_public():
    assert pkpo_kernels.advantages is advantages
