"""What only a GPU can show: captured graphs, streams, indices of more than 32 bits, no wait for the device."""

import pytest
import torch
from backends import BACKENDS
from compare import BOUND, relative_error_of
from oracle import transform as exact_transform
from test_promises import identical

import pkpo_kernels
from pkpo_kernels import _backends

pytestmark = pytest.mark.skipif("cuda" not in BACKENDS, reason=f"no GPU to test: {_backends.cuda_problem}")
transform, max_at_k = torch.ops.pkpo.transform, torch.ops.pkpo.max_at_k


def x(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).cuda()


@pytest.mark.parametrize("n", [16, 300, 5000])
def test_a_captured_graph_follows_k_and_rewards(n):
    rewards, k = x(32, n), torch.tensor(2, device="cuda")
    transform(rewards, k)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = transform(rewards, k)
    for new_k in (1, 5, n):
        rewards.copy_(x(32, n, seed=new_k))
        k.fill_(new_k)
        graph.replay()
        assert identical(y.cpu(), transform(rewards, new_k).cpu())


def test_groups_by_offsets_in_a_captured_graph():
    """The grid that waits for itself too: of 20,000 samples, in groups of 500, then one of 9,000."""
    rewards, k = x(20_000), torch.tensor(3, device="cuda")
    offsets = (torch.arange(41) * 500).cuda()
    transform(rewards, offsets, k)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = transform(rewards, offsets, k)
    for begin, size in ((0, 500), (500, 9000)):
        offsets[2:21].clamp_(begin + size if begin else 0)
        graph.replay()
        assert identical(y.cpu(), transform(rewards, offsets.clone(), k).cpu())
        assert identical(y[begin : begin + size].cpu(), transform(rewards[begin : begin + size].clone(), 3).cpu())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_groups_in_one_launch_have_the_bits_of_many(dtype):
    """Of few samples in all and, behind as many groups of two that the passes are launches, the same ones."""
    sizes = torch.tensor([9000, 20, 140_000, 8193, 4097])
    few = torch.cat([torch.zeros(1), sizes.cumsum(0)]).long()
    many = torch.cat([few[:-1], torch.arange(int(few[-1]), 2_000_001, 2)])
    rewards, grad, k = x(2_000_000, dtype=dtype).mul(100).round(), x(2_000_000, dtype=dtype), torch.tensor(3).cuda()
    of_few = rewards[: few[-1]].clone(), grad[: few[-1]].clone(), few.cuda()
    backward = torch.ops.pkpo._transform_backward
    y, gx = transform(of_few[0], of_few[2], k), backward(of_few[1], of_few[0], of_few[2], k)
    assert identical(y.cpu(), transform(rewards, many.cuda(), k)[: few[-1]].cpu())
    assert identical(gx.cpu(), backward(grad, rewards, many.cuda(), k)[: few[-1]].cpu())


def test_nothing_waits_for_the_device():
    offsets = torch.tensor([0, 3, 3, 600, 7000], device="cuda")
    values, k = x(7000), torch.tensor([2, 1, 4, 3], device="cuda")
    dense = x(4, 16).requires_grad_()
    transform(values, offsets, k)
    pkpo_kernels.transform(values, 2, group_ids=["a", "b"] * 3500)
    torch.cuda.set_sync_debug_mode("error")
    try:
        transform(values, offsets, k)
        max_at_k(values, offsets, k)
        pkpo_kernels.transform(values, 2, lengths=[3, 0, 597, 6400])
        pkpo_kernels.transform(values, 2, group_ids=["a", "b"] * 3500)
        transform(dense, 3).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_two_streams():
    inputs = [x(2048, 64, seed=s) for s in range(2)]
    expected = [transform(each, 3) for each in inputs]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in inputs]
    for _ in range(20):
        results = []
        for stream, each in zip(streams, inputs):
            with torch.cuda.stream(stream):
                results.append(transform(each, 3))
        torch.cuda.synchronize()
        assert all(identical(a.cpu(), b.cpu()) for a, b in zip(results, expected))


def test_no_memory_beside_the_output():
    rewards = x(64, 8192)
    transform(rewards, 3)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    transform(rewards, 3)
    assert torch.cuda.max_memory_allocated() - before <= rewards.numel() * 4 + 512


@pytest.mark.parametrize("baseline", ["none", "loo-1"])
@pytest.mark.parametrize("n", [2, 4, 8, 16, 31, 32, 40, 64, 256, 512, 1000])
def test_a_large_batch_has_the_bits_of_a_small_one(n, baseline):
    """Though a thread has up to 32 samples of the one, and 16, 8 or 1 of the other."""
    groups = 2**23 // n
    rewards = x(groups, n)
    rewards[1::3] = rewards[1::3].round()
    rewards[2::11, 1:] = torch.nan
    rewards[4::17, 0] = torch.inf
    rewards[groups // 2 :] = rewards[groups // 2 :].nan_to_num(0.5, 0.5)
    y = transform(rewards, 2, baseline=baseline).cpu()
    for at in range(0, groups - 16, groups // 7):
        assert identical(y[at : at + 16], transform(rewards[at : at + 16], 2, baseline=baseline).cpu())


@pytest.mark.parametrize("groups,n", [(2**31 // 16 + 5, 16), (2**31 // 1000 + 5, 1000)])
def test_more_than_32_bits_of_index(groups, n):
    free, _ = torch.cuda.mem_get_info()
    if free < 5 * groups * n:
        pytest.skip("not enough memory")
    rewards = torch.zeros(groups, n, dtype=torch.bfloat16, device="cuda")
    rewards[-1] = x(n, dtype=torch.bfloat16)
    y = transform(rewards, 3)
    assert identical(y[-1].cpu(), transform(rewards[-1].clone(), 3).cpu())
    assert not y[:5].any() and not y[-5:-1].any()


@pytest.mark.parametrize("n", [16, 700, 20_000])
def test_against_exact_arithmetic_after_poisoned_memory(n):
    """The output's memory held something else before: every element is written."""
    rewards = x(3, n)
    poison = torch.full_like(rewards, 12345.0)
    del poison
    y = transform(rewards, 4).cpu()
    for values, got in zip(rewards.cpu().tolist()[:1], y):
        assert n > 1000 or relative_error_of(got, exact_transform(values, 4, "loo-1")) <= BOUND[torch.float32]
    assert (y.abs() < 12345).all()
