"""Groups of up to 140,000 samples beside small ones, of every dtype, with ties that go on over many thousand ranks: loo-1 for
the best of 2, whose weights are 2 q / (n (n-1)), and its gradient, of whole numbers, in integer arithmetic."""

import itertools

import pytest
import torch
from backends import BACKENDS
from samples import x as random
from test_promises import identical

every_backend = pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "triton interpreted"])

SIZES = (9000, 140_000, 20, 4097, 8193, 0, 12_288, 20_001)
OFFSETS = torch.tensor([0, *SIZES]).cumsum(0)
#: The rewards' magnitudes: so large that no bit of a key is the same in all of them.
MOST = {
    torch.float64: 2**30,
    torch.float32: 2**23,
    torch.bfloat16: 2**8,
    torch.float16: 2**11,
    torch.int64: 2**30,
    torch.int32: 2**30,
    torch.int16: 2**15 - 1,
    torch.int8: 2**7 - 1,
    torch.uint8: 2**8 - 1,
    torch.bool: 1,
}
#: Of results, in units of the largest: the last place of 16-bit floats, and what the kernels promise of the others.
BOUND = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
#: Rows of sizes next to those at which the CUDA kernels take other ways, which differ by dtype and for gradients.
WIDE_ROWS = [(torch.float32, 4097), (torch.float32, 8192), (torch.float64, 6000), (torch.float64, 8192)]
WIDE_ROWS += [(torch.float16, 8193), (torch.float32, 16_384)]


def whole_numbers(dtype, kind, *shape):
    most = MOST[dtype] if kind == "spread" else min(3, MOST[dtype])
    signed = dtype not in (torch.uint8, torch.bool)
    values = (random(*shape, dtype=torch.float64) * most / 3).round().clamp(-most, most).long()
    return values if signed else values.abs()


def exact(values):
    """y of the best of 2, an integer over n (n-1), and that; of one group."""
    n = values.numel()
    ordered, order = values.sort()
    sums = (2 * torch.arange(n) * ordered.diff(prepend=ordered[:1])).cumsum(0)
    return torch.empty_like(sums).scatter_(0, order, sums), n * (n - 1)


def exact_gradient(values, grad):
    """Differences of two h, an integer over n (n-1) each, shared by equal rewards; that; and the largest h, since these are
    what the kernels round."""
    n = values.numel()
    ordered, order = values.sort()
    above = grad[order].flip(0).cumsum(0).flip(0)
    h = torch.cat([2 * torch.arange(n) * above, torch.zeros(1, dtype=torch.int64)])
    _, counts = ordered.unique_consecutive(return_counts=True)
    ends = counts.cumsum(0)
    shares = ((h[ends - counts] - h[ends]).double() / counts).repeat_interleave(counts)
    return torch.empty_like(shares).scatter_(0, order, shares), n * (n - 1), h.abs().max()


def assert_near(y, expected, rounded=0):
    """Within the bound of the largest, and what was rounded before differences were taken."""
    assert (y.double() - expected).abs().max() <= BOUND[y.dtype] * expected.abs().max() + rounded


def assert_transformed(y, values):
    numerators, denominator = exact(values)
    assert_near(y, numerators.double() / denominator)


def assert_gradient(gx, values, grad):
    numerators, denominator, h = exact_gradient(values, grad.long())
    assert_near(gx, numerators / denominator, 1e-15 * h / denominator)


def groups(present):
    for begin, end in itertools.pairwise(OFFSETS):
        yield slice(begin, end), present[begin:end]


@every_backend
@pytest.mark.parametrize("kind", ["spread", "ties"])
@pytest.mark.parametrize("dtype", MOST, ids=str)
def test_against_integers(backend, dtype, kind):
    values = whole_numbers(dtype, kind, int(OFFSETS[-1]))
    rewards, present = values.to(dtype), torch.ones(values.shape, dtype=torch.bool)
    if dtype.is_floating_point:
        present[5 : OFFSETS[2] : 7] = False  # in the first two groups
        rewards[~present] = torch.nan
    grad = (3 * random(values.numel())).round()
    ops, k = BACKENDS[backend], torch.tensor(2)
    y, gx = ops.transform(rewards, OFFSETS, k), None
    if dtype.is_floating_point:
        gx = ops.transform_backward(grad.to(dtype), rewards, OFFSETS, k)
    for where, there in groups(present):
        if there.numel() == 0:
            continue
        assert_transformed(y[where][there], values[where][there])
        assert not y[where][~there].any()
        if gx is not None:
            assert_gradient(gx[where][there], values[where][there], grad[where][there])
            assert not gx[where][~there].any()


@every_backend
@pytest.mark.parametrize("kind", ["spread", "ties"])
@pytest.mark.parametrize("dtype,n", WIDE_ROWS, ids=str)
def test_rows_against_integers(backend, dtype, n, kind):
    values = whole_numbers(dtype, kind, 3, n)
    present = torch.ones(values.shape, dtype=torch.bool)
    present[1, 5::7], present[2, n // 3 :] = False, False
    rewards, grad = values.to(dtype).masked_fill(~present, torch.nan), (3 * random(3, n)).round()
    y, gx = BACKENDS[backend].transform(rewards, 2), BACKENDS[backend].transform_backward(grad.to(dtype), rewards, 2)
    assert not y[~present].any() and not gx[~present].any()
    for row, there in enumerate(present):
        assert_transformed(y[row][there], values[row][there])
        assert_gradient(gx[row][there], values[row][there], grad[row][there])


@pytest.mark.skipif("cuda on cpu" not in BACKENDS, reason="only the CUDA kernels go two ways")
@pytest.mark.parametrize("dtype,n", WIDE_ROWS, ids=str)
def test_a_block_in_two_turns_gives_the_bits_of_many_launches(dtype, n):
    """Ties, absent and infinite rewards, every baseline and op."""
    backend = BACKENDS["cuda on cpu"]
    rewards = random(4, n).mul(100).round().to(dtype)
    rewards[0] = random(n)
    rewards[1, ::3] = torch.nan
    rewards[2, : n // 2 + n // 4] = torch.nan
    rewards[3, 5::97], rewards[3, ::2] = torch.inf, -torch.inf
    grad, k = random(4, n).to(dtype) / 3, torch.tensor([5, 2, n, 1])
    ways = []
    if n > 8192 or dtype == torch.float64:
        ways += [lambda b=b: backend.transform(rewards, k, baseline=b) for b in ("none", "loo", "loo-1")]
        ways += [lambda: backend.max_at_k(rewards, k)]
    if n <= 8192:
        ways += [lambda b=b: backend.transform_backward(grad, rewards, k, baseline=b) for b in ("none", "loo", "loo-1")]
        ways += [lambda: backend.max_at_k_backward(grad[:, 0], rewards, k)]
    before = backend.launches()
    in_two_turns = [way() for way in ways]
    assert backend.launches() - before == len(ways)
    with backend.little_shared_memory():
        assert all(identical(way(), y) for way, y in zip(ways, in_two_turns, strict=True))
    assert backend.launches() - before > 10 * len(ways)


@pytest.mark.skipif("cuda on cpu" not in BACKENDS, reason="only the CUDA kernels go two ways")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_one_launch_gives_the_bits_of_many(dtype):
    """Ties, absent and infinite rewards, groups of one tile, several, and more than are summed up together; every op."""
    backend = BACKENDS["cuda on cpu"]
    rewards = random(int(OFFSETS[-1])).mul(100).round().to(dtype)
    rewards[: OFFSETS[1]] = rewards[: OFFSETS[1]].masked_fill(rewards[: OFFSETS[1]] < 0, torch.nan)
    rewards[OFFSETS[-2] :: 1000] = torch.inf
    grad, k = random(rewards.numel()).to(dtype) / 3, torch.tensor([2, 5, 3, 1, 8193, 1, 4, 20_001])

    def results():
        for baseline in ("none", "loo-1"):
            yield backend.transform(rewards, OFFSETS, k, baseline=baseline)
        yield backend.max_at_k(rewards, OFFSETS, k)
        yield backend.transform_backward(grad, rewards, OFFSETS, k)

    at_once = list(results())
    with backend.a_launch_for_each_pass():
        assert all(identical(a, b) for a, b in zip(at_once, results(), strict=True))


@every_backend
def test_no_group_is_large_though_there_are_many_samples(backend):
    count, n = 30, 500
    values = (random(count * n) * 1000).round()
    y = BACKENDS[backend].transform(values, torch.arange(count + 1) * n, torch.tensor(2))
    for its_values, its_y in zip(values.view(count, n), y.view(count, n)):
        assert_transformed(its_y, its_values.long())


@every_backend
def test_memory_that_held_something_else(backend):
    """The workspace's, too, in which blocks that wait for each other are counted."""
    offsets, values = torch.arange(5) * 9000, (random(4 * 9000) * 1000).round()
    for byte in (0x55, 0xFF, 0):
        for _ in range(3):
            torch.full((4 << 20,), byte, dtype=torch.uint8)  # memory that is given back, and given out again
        y = BACKENDS[backend].transform(values, offsets, torch.tensor(2))
        for its_values, its_y in zip(values.view(4, -1), y.view(4, -1)):
            assert_transformed(its_y, its_values.long())


@every_backend
def test_a_large_group_among_thousands(backend):
    before, n, behind = 7000, 9000, 3000
    offsets = torch.cat([torch.arange(before + 1) * 2, 2 * before + n + torch.arange(behind + 1) * 2])
    values = (random(int(offsets[-1])) * 1000).round()
    y = BACKENDS[backend].transform(values, offsets, torch.tensor(2))
    large = slice(2 * before, 2 * before + n)
    assert_transformed(y[large], values[large].long())
    pairs, of_pairs = (torch.cat([x[: large.start], x[large.stop :]]).view(-1, 2) for x in (values, y))
    assert torch.equal(of_pairs, (pairs - pairs.flip(1)).clamp(min=0))


@every_backend
def test_more_tiles_than_threads(backend):
    """Those of a group are summed up by one block, several a thread from 256 * 4,096 samples on."""
    ops, values = BACKENDS[backend], (random(1_100_000) * 1000).round()
    grad = (random(values.numel() + 1)[1:] * 3).round()
    assert_transformed(ops.transform(values, 2), values.long())
    assert_gradient(ops.transform_backward(grad, values, 2), values.long(), grad)


@every_backend
def test_infinite_rewards(backend):
    """Only where an infinite reward or gap has a weight is a result infinite, tiles away too."""
    ops, n = BACKENDS[backend], 20_000
    values = (random(n) * 1000).round()
    chosen = torch.zeros(n, dtype=torch.bool)
    chosen[5::97] = True
    lower, higher = values.masked_fill(chosen, -torch.inf), values.masked_fill(chosen, torch.inf)
    assert torch.equal(ops.transform(lower, 2), torch.where(chosen, 0.0, torch.inf))
    assert torch.equal(ops.transform(higher, 2, baseline="none"), torch.full((n,), torch.inf))

    y = ops.transform(higher, 2)
    assert (y[chosen] == torch.inf).all()
    numerators, denominator = exact(values.masked_fill(chosen, 10_000).long())
    assert_near(y[~chosen], numerators[~chosen].double() / denominator)

    # y_i = (i x_(i) + sum over j > i of x_(j)) / C(n, 2)
    y = ops.transform(lower, 2, baseline="none")
    assert (y[chosen] == -torch.inf).all()
    ordered, order = values.masked_fill(chosen, -10_000).long().sort()
    sums = torch.arange(n) * ordered + ordered.sum() - ordered.cumsum(0)
    numerators = torch.empty_like(sums).scatter_(0, order, sums)
    assert_near(y[~chosen], 2 * numerators[~chosen].double() / (n * (n - 1)))


@every_backend
def test_ties_and_permutations_change_no_bit(backend):
    """Equal rewards have equal results, and a permutation permutes them, over thousands of ranks."""
    ops = BACKENDS[backend]
    rewards = random(3, 20_000).double().mul(2).round().float()
    order = torch.randperm(20_000, generator=torch.Generator().manual_seed(1))
    for baseline in ("none", "loo", "loo-1"):
        y = ops.transform(rewards, 5, baseline=baseline)
        assert torch.equal(ops.transform(rewards[:, order], 5, baseline=baseline), y[:, order])
        for values, results in zip(rewards, y):
            assert all(results[values == value].unique().numel() == 1 for value in values.unique())
