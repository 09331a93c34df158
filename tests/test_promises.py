"""The bitwise promises, dtypes, and the edges that the mathematics leaves open."""

import itertools
import math
from fractions import Fraction

import oracle
import pytest
import rewards
import torch
from backends import BACKENDS

BASELINES = ("none", "loo", "loo-1")
every_backend = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
every_baseline = pytest.mark.parametrize("baseline", BASELINES)


def identical(a, b):
    """Bit for bit: -0 is not 0, and any NaN is any other."""
    a, b = torch.where(a.isnan(), torch.nan, a), torch.where(b.isnan(), torch.nan, b)
    integer = {8: torch.int64, 4: torch.int32, 2: torch.int16}[a.element_size()]
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(integer), b.contiguous().view(integer))


def batch(groups, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(groups, n, generator=generator)
    x[1::3] = (x[1::3] * 2).round()  # ties, and zeros of both signs
    x[2::5, ::2] = torch.nan
    return x


def ops(backend, k, baseline):
    return {
        "transform": lambda x: backend.transform(x, k, baseline=baseline),
        "max_at_k": lambda x: backend.max_at_k(x, k),
        "backward": lambda x: backend.transform_backward(torch.ones_like(x), x, k, baseline=baseline),
    }


@every_baseline
@every_backend
@pytest.mark.parametrize("n", [1, 5, 16, 300])
def test_bits(backend, baseline, n):
    x = batch(64, n)
    k = max(1, min(3, n - 1))
    if baseline == "loo" and k == n:
        return
    for name, op in ops(backend, k, baseline).items():
        y = op(x)
        assert identical(y, op(x)), "same input, same bits"
        order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
        assert identical(y[order], op(x[order])), "whatever its place in the batch"
        for g in range(0, 64, 7):
            assert identical(y[g], op(x[g])), "whatever the other groups"
        shuffled = torch.stack([torch.randperm(n, generator=torch.Generator().manual_seed(g)) for g in range(64)])
        expected = y if name == "max_at_k" else y.gather(1, shuffled)
        assert identical(expected, op(x.gather(1, shuffled))), "permuting a group permutes its output"


@every_backend
@pytest.mark.parametrize("n", [4, 8, 16, 64, 256, 512])
def test_a_batch_that_is_done_in_turns(backend, n):
    """Ten thousand samples are more than the stand-in for a GPU takes at once."""
    groups = 10_000 // n + 1
    x = batch(groups, n)
    for op in ops(backend, 3, "loo-1").values():
        y = op(x)
        for g in range(0, groups, groups // 17):
            assert identical(y[g], op(x[g]))


@every_backend
@every_baseline
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_small_rows_beside_odd_ones(backend, baseline, dtype):
    """Absent and infinite rewards in one row, and in so many that the CPU kernel gives up to look for others."""
    for n in range(2, 34):
        x = torch.randn(150, n, generator=torch.Generator().manual_seed(n)).to(dtype)
        x[3, 1:], x[20, 0], x[37, 0], x[-1, 0] = torch.nan, torch.inf, -torch.inf, torch.nan
        x[50:120:3, 0], x[60] = torch.nan, torch.nan
        y = backend.transform(x, n - 1, baseline=baseline)
        for g in (0, 3, 4, 20, 21, 37, 49, 50, 51, 60, 61, 118, 119, 120, 141, 149):
            assert identical(y[g], backend.transform(x[g], n - 1, baseline=baseline)), (n, g)


NARROW = (torch.float32, torch.bfloat16, torch.float16, torch.bool, torch.uint8, torch.int8, torch.int16)


def rows_of_all_kinds(n, baseline):
    """Groups with absent, infinite and large rewards among plain ones; their offsets; a k for each."""
    groups = 4_000 // n + 3
    x = batch(groups, n)
    x[groups // 4 :] = x[groups // 4 :].nan_to_num(0.5)
    x[0], x[groups // 2, 0], x[-2, :2], x[-1, :2] = torch.nan, torch.inf, -torch.inf, torch.tensor([3e38, -3e38])
    k = torch.arange(groups) % n + (baseline != "loo")
    return x, torch.arange(groups + 1) * n, k.clamp(min=1)


def one_later(rows):
    """The same in memory that begins one element after an aligned place."""
    return torch.cat([rows.flatten()[:1], rows.flatten()])[1:].view(rows.shape)


@every_backend
@every_baseline
@pytest.mark.parametrize("n", [2, 4, 8])
def test_rows_of_a_word_or_two_wherever_they_begin(backend, baseline, n):
    """Rows that are read and written at once where they are aligned; groups told by offsets never are."""
    x, offsets, k = rows_of_all_kinds(n, baseline)
    groups = len(x)
    integers = torch.nan_to_num(x, 0, 0, 0).round().clamp(-99, 99).abs()
    for dtype in NARROW:
        rows = x.to(dtype) if dtype.is_floating_point else integers.to(dtype)
        later = one_later(rows)
        for of_groups in (torch.full((groups,), n - 1), k):
            expected = backend.transform(rows.flatten(), offsets, of_groups, baseline=baseline).view(groups, n)
            assert identical(backend.transform(rows, of_groups, baseline=baseline), expected)
            assert identical(backend.transform(later, of_groups, baseline=baseline), expected)
        assert identical(
            backend.transform(rows, n - 1, baseline=baseline), backend.transform(later, n - 1, baseline=baseline)
        )


@every_backend
@every_baseline
@pytest.mark.parametrize("n", [2, 4, 8])
def test_gradients_of_such_rows(backend, baseline, n):
    """Those that come in are of one size, of very different sizes, infinite or NaN."""
    x, offsets, k = rows_of_all_kinds(n, baseline)
    groups = len(x)
    generator = torch.Generator().manual_seed(n)
    grad = torch.randn(groups, n, generator=generator)
    grad[::7] *= 2.0 ** torch.randint(-40, 40, (len(grad[::7]), n), generator=generator)
    grad[groups // 2 :: 5, 0] = 0
    grad[groups // 2 : groups * 3 // 4] = 1
    grad[groups // 2, 1], grad[-3, 0], grad[-5, 1] = torch.inf, -torch.inf, torch.nan
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        rows, incoming = x.to(dtype), grad.to(dtype)
        for of_groups in (torch.full((groups,), n - 1), k, torch.tensor(n - 1)):
            expected = backend.transform_backward(
                incoming.flatten(), rows.flatten(), offsets, of_groups, baseline=baseline
            ).view(groups, n)
            for these in (rows, one_later(rows)):
                for those in (incoming, one_later(incoming)):
                    got = backend.transform_backward(those, these, of_groups, baseline=baseline)
                    assert identical(got, expected)


@pytest.mark.skipif("cuda on cpu" not in BACKENDS, reason="only the CUDA kernels tell small batches from large ones")
@every_baseline
@pytest.mark.parametrize("n", [9, 16, 31, 64, 100, 256, 700, 1024])
def test_small_batches_take_other_kernels_of_the_same_bits(baseline, n):
    backend, k = BACKENDS["cuda on cpu"], 3
    values, offsets = batch(1, 6 * n)[0], torch.tensor([0, n, n + 4, 2 * n, 4 * n - 2, 6 * n])
    grouped_k = torch.full((5,), k)
    grouped = lambda _: backend.transform(values, offsets, grouped_k, baseline=baseline)  # noqa: E731
    cases = [*ops(backend, k, baseline).values(), grouped]
    for op in cases:
        x = batch(64, n)
        y = op(x)
        for most_blocks in (2, 10**6):  # fewer than a thread for each sample takes, and as many
            with backend.small_batches_fit(most_blocks):
                assert identical(op(x), y)


@pytest.mark.skipif("cuda on cpu" not in BACKENDS, reason="only the CUDA kernels tell small batches from large ones")
@pytest.mark.parametrize("n", [513, 700, 1000, 1024])
def test_a_warp_with_32_samples_a_thread_gives_the_bits_of_a_block(n):
    """Rewards that lie close together, ties, absent, infinite and huge ones."""
    backend, x = BACKENDS["cuda on cpu"], batch(12, n).nan_to_num(0.5)
    absent = x[0] > 0.5
    x[1], x[2], x[3] = (2 * x[1]).round(), (x[2] > 0).float(), x[3].masked_fill(absent, torch.nan)
    x[4], x[5], x[6] = 1 + x[4] * 2**-13, 1 + (9 * x[5]).round() * 2.0**-23, torch.nan
    x[7], x[8] = x[7].sort().values, x[8].sort(descending=True).values
    x[9, ::7], x[9, ::5], x[9, ::11] = torch.inf, -torch.inf, torch.nan
    x[10], x[11, ::2] = (x[10] * 1e38).clamp(-3.4e38, 3.4e38), torch.inf
    for k in (1, 2, 7, n):
        y = backend.transform(x, k)
        with backend.small_batches_fit():
            assert identical(backend.transform(x, k), y), k


@pytest.mark.skipif("cuda on cpu" not in BACKENDS, reason="only the CUDA kernels tell small batches from large ones")
@every_baseline
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_groups_that_take_a_block_may_all_take_the_largest(baseline, dtype):
    """Of sizes on both sides of every block's room, and of a warp's."""
    backend = BACKENDS["cuda on cpu"]
    sizes = torch.tensor([513, 40, 1024, 257, 0, 1025, 512, 700, 2048, 256, 2049, 8192, 1, 4096, 4097, 300, 6000, 511])
    offsets = torch.cat([torch.zeros(1), sizes.cumsum(0)]).long()
    rewards = batch(1, int(offsets[-1])).flatten().to(dtype)
    rewards[::2] = (rewards[::2] * 9).round()
    rewards[offsets[9] : offsets[13] : 5] = torch.nan
    rewards[offsets[15] + 7] = torch.inf
    k = 1 + torch.arange(len(sizes)) * 7 % 11
    for op in (
        lambda: backend.transform(rewards, offsets, k, baseline=baseline),
        lambda: backend.max_at_k(rewards, offsets, k),
        lambda: backend.transform_backward(torch.ones_like(rewards), rewards, offsets, k, baseline=baseline),
    ):
        y = op()
        with backend.small_batches_fit():
            assert identical(op(), y)


@pytest.mark.skipif("cuda on cpu" not in BACKENDS, reason="only the CUDA kernels tell small batches from large ones")
@every_baseline
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9, 13, 16, 17, 31, 32])
def test_a_thread_a_sample_gives_the_same_bits(baseline, n):
    if baseline == "loo" and n == 1:
        return
    backend, groups = BACKENDS["cuda on cpu"], 203
    absent = batch(groups, n)
    plain = absent.nan_to_num(0.5)
    large = plain.clone()
    large[3], large[40, 0], large[-2, :2], large[-1, -1] = torch.inf, -torch.inf, torch.tensor([3e38, -3e38])[:n], 1e38
    integers = plain.round().clamp(-99, 99).abs()
    most = n - 1 if baseline == "loo" else n
    for k in (1, min(2, most), (most + 1) // 2, most, 1 + torch.arange(groups) % most):
        for dtype in NARROW:
            for x in (plain, absent, large) if dtype.is_floating_point else (integers,):
                y = backend.transform(x.to(dtype), k, baseline=baseline)
                with backend.small_batches_fit():
                    assert identical(backend.transform(x.to(dtype), k, baseline=baseline), y), (k, dtype)


@every_baseline
def test_threads_change_no_bit(two_threads, baseline):
    x = batch(5000, 16)
    offsets = torch.cat([torch.zeros(1), torch.randint(0, 40, (4000,)).cumsum(0)]).long()
    offsets = offsets[offsets <= x.numel()].contiguous()
    values, k = x.flatten()[: offsets[-1]], torch.tensor(3)
    op = torch.ops.pkpo.transform
    two = op(x, 3, baseline=baseline), op(values, offsets, k, baseline=baseline), torch.ops.pkpo.max_at_k(x, 3)
    torch.set_num_threads(1)
    one = op(x, 3, baseline=baseline), op(values, offsets, k, baseline=baseline), torch.ops.pkpo.max_at_k(x, 3)
    assert all(identical(a, b) for a, b in zip(one, two))


@every_backend
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_the_float32_result_rounded_once(backend, dtype):
    x = batch(64, 16).to(dtype)
    for baseline in BASELINES:
        half = backend.transform(x, 3, baseline=baseline)
        assert half.dtype == dtype
        assert identical(half, backend.transform(x.float(), 3, baseline=baseline).to(dtype))
        grad = torch.randn_like(x)
        half = backend.transform_backward(grad, x, 3, baseline=baseline)
        assert identical(half, backend.transform_backward(grad.float(), x.float(), 3, baseline=baseline).to(dtype))
    assert identical(backend.max_at_k(x, 3), backend.max_at_k(x.float(), 3).to(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_half_value_is_read_and_rounded_as_torch_does(dtype):
    """baseline none with k = n = 1 is the identity: all 65,536 patterns go in, converted to float32 and back."""
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype).unsqueeze(-1)
    y = torch.ops.pkpo.transform(every, 1, baseline="none")
    assert identical(y, torch.where(every.isnan(), torch.zeros_like(every), every + 0.0))
    # rounding: max_at_k of two values with k = 1 is their mean, which falls between, on and off the halves
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**15), 2**15, (100_000, 2), generator=generator).to(torch.int16)
    pairs = bits.view(dtype)
    pairs = pairs[pairs.isfinite().all(-1)]
    mean = torch.ops.pkpo.max_at_k(pairs.float(), 1)
    assert identical(torch.ops.pkpo.max_at_k(pairs, 1), mean.to(dtype))


@every_backend
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_bool_and_integers_give_the_float32_result(backend, dtype):
    x = torch.randint(0, 2 if dtype == torch.bool else 9, (64, 12), generator=torch.Generator().manual_seed(0)).to(
        dtype
    )
    x[0], x[1] = 0, 1
    # A GPU weighs float32 in float32 and wide integers in float64: the same result, but for rounding.
    wide = dtype in (torch.int32, torch.int64) and not backend.one_arithmetic
    same = (lambda a, b: torch.allclose(a, b, rtol=1e-6, atol=1e-6)) if wide else identical
    for k, baseline in itertools.product((1, 2, 5, 11), BASELINES):
        y = backend.transform(x, k, baseline=baseline)
        assert y.dtype == torch.float32 and same(y, backend.transform(x.float(), k, baseline=baseline))
        assert same(backend.max_at_k(x, k), backend.max_at_k(x.float(), k))


def test_large_integers_keep_their_differences():
    x = torch.tensor([2**40, 2**40 + 1, 2**40 + 3])
    exact = oracle.transform(x.tolist(), 2, "loo-1")
    assert torch.ops.pkpo.transform(x, 2).tolist() == pytest.approx([float(v) for v in exact], rel=1e-6)


def test_bool_of_any_byte():
    x = torch.tensor([[0, 1, 2, 255]], dtype=torch.uint8).view(torch.bool)
    assert torch.equal(torch.ops.pkpo.transform(x, 2), torch.ops.pkpo.transform(torch.tensor([[0.0, 1, 1, 1]]), 2))


# -------------------------------------------------------------------------------------------------------------- edges


@every_backend
def test_edges(backend):
    x = torch.tensor([[0.5, 2.0, -1.0]])
    mean_of_others = (x.sum() - x) / 2
    torch.testing.assert_close(backend.transform(x, 1), (x - mean_of_others) / 3)
    torch.testing.assert_close(backend.transform(x, 1, baseline="none"), x / 3)
    assert torch.equal(backend.transform(x[:, :1], 1), torch.zeros(1, 1))
    assert torch.equal(backend.transform(x[:, :1], 1, baseline="none"), x[:, :1])
    for value in (0.1, -3.0, 1e30):
        equal = torch.full((2, 7), value)
        for k in range(1, 8):
            assert torch.equal(backend.transform(equal, k), torch.zeros(2, 7))
    assert torch.equal(backend.max_at_k(x, 3), torch.tensor([2.0]))


@every_backend
@every_baseline
def test_a_zero_is_never_negative(backend, baseline):
    for x in (
        torch.zeros(5),
        -torch.zeros(5),
        torch.tensor([0.0, -0.0, 0.0, -0.0, -0.0]),
        torch.tensor([-0.0, torch.nan] * 3),
        *(-torch.zeros(n) for n in (2, 4, 8)),
    ):
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
            rewards, k = x.to(dtype), 1 if len(x) == 2 else 2
            for rows in (rewards, rewards.repeat(40, 1)):
                y = backend.transform(rows, k, baseline=baseline)
                assert (y == 0).all() and not y.signbit().any()
            assert not backend.max_at_k(rewards, 2).signbit().any()
            zeros = torch.zeros_like(rewards)
            below = [torch.nextafter(zeros, zeros - 1)] if dtype in (torch.float64, torch.float32) else []
            for grad in (zeros, -zeros, *below):
                gx = backend.transform_backward(grad, rewards, k, baseline=baseline)
                assert not (gx.signbit() & (gx == 0)).any()


@every_backend
@every_baseline
def test_absent_samples_are_left_out(backend, baseline):
    """Every pattern of NaN in a group of five: the others get what they get alone, with k clamped to them."""
    values = rewards.gaussian(5)
    for present in itertools.product((False, True), repeat=5):
        mask = torch.tensor(present)
        x = torch.where(mask, values, torch.nan)
        for k in range(1, 5 if baseline == "loo" else 6):
            y = backend.transform(x, k, baseline=baseline)
            assert torch.equal(y[~mask], torch.zeros(5, dtype=x.dtype)[~mask])
            clamped = oracle.clamp(baseline, sum(present), k)
            if clamped >= 1:
                assert identical(y[mask], backend.transform(values[mask], clamped, baseline=baseline))
            else:
                assert torch.equal(y, torch.zeros(5, dtype=x.dtype))
            m = backend.max_at_k(x, k)
            if mask.any():
                assert identical(m, backend.max_at_k(values[mask], min(k, sum(present))))
            else:
                assert m.isnan()


@every_backend
def test_infinite_rewards_are_the_limit_of_large_ones(backend):
    """The oracle has 10^30 in their place: what it makes larger than 10^20 must be infinite, the rest as it is."""
    inf = math.inf
    groups = [
        [1.0, 2.0, inf, 3.0, 0.5],
        [inf, 1.0, inf, 2.0, 0.0],
        [-inf, 1.0, 5.0, 2.0, 0.0],
        [-inf, -inf, -inf, 2.0, 0.0],
        [-inf, 1.0, inf, 2.0, 0.0],
        [inf] * 5,
        [-inf] * 5,
    ]
    large = Fraction(10) ** 30
    for values, baseline in itertools.product(groups, oracle.FORMS):
        for k in range(1, 6):
            if not oracle.allowed(baseline, 5, k):
                continue
            finite = [Fraction(v) if math.isfinite(v) else (1 if v > 0 else -1) * large for v in values]
            exact = oracle.transform(finite, k, baseline)
            for dtype in (torch.float32, torch.float64):
                x = torch.tensor(values, dtype=dtype)
                y = backend.max_at_k(x, k) if baseline == "max_at_k" else backend.transform(x, k, baseline=baseline)
                exact_list = [exact] if baseline == "max_at_k" else exact
                for got, want in zip(y.reshape(-1).tolist(), exact_list, strict=True):
                    if abs(want) > 10**20:
                        assert got == math.copysign(inf, want), (values, baseline, k, y)
                    else:
                        assert got == pytest.approx(float(want), rel=1e-6, abs=1e-6), (values, baseline, k, y)


@every_backend
def test_an_infinite_gap_of_no_weight_adds_nothing(backend):
    """No 4-subset has its second largest among the lowest two: loo-1 of the rest is as if these had the third's reward."""
    x = torch.tensor([-math.inf, -math.inf, 1.0, 2.0, 3.0])
    assert torch.equal(backend.transform(x, 4), backend.transform(torch.tensor([1.0, 1.0, 1.0, 2.0, 3.0]), 4))


@every_backend
def test_finite_rewards_whose_difference_overflows(backend):
    big = 1.7e308
    x = torch.tensor([-big, 0.0, big], dtype=torch.float64)
    exact = [float(v) for v in oracle.transform(x.tolist(), 2, "loo-1")]
    assert backend.transform(x, 2).tolist() == pytest.approx(exact, rel=1e-13)
